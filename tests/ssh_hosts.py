"""Many ssh hosts on one machine: network namespaces on one switch, each with a real sshd. For root.

A host has an address, a host name, a process tree and a home of its own; the file system is this machine's.
"""

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.sshd import SBIN, Keys, remove, require_openssh, sshd

from shoal.host.ssh import SshHost

NETDEV = "fab0"  # a host's name of its one interface
UPLINK = 254  # this machine's own address on the switch
OWN = ("unshare", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc", "--")
# The kernel takes a namespace down after `ip netns del` has returned: a name is used once.
NUMBERS = itertools.count()
NAMED = ("sh", "-c", 'hostname "$0" && exec "$@"')


@dataclass(frozen=True)
class SshHosts:
    """The hosts by name, each as (address, namespace), and the config by which ssh finds them."""

    config: Path
    places: dict[str, tuple[str, str]]

    def hosts(self, *, patience: int = 10) -> list[SshHost]:
        """Each as a Host."""
        sockets = str(self.config.parent)
        return [SshHost(name, config=str(self.config), sockets=sockets, patience=patience) for name in self.places]

    def cable(self, name: str, *, up: bool) -> None:
        """Pull a host's cable, or put it back."""
        _ip("-n", self.places[name][1], "link", "set", NETDEV, "up" if up else "down")


@contextmanager
def ssh_hosts(count: int, *, subnet: str = "192.168.100") -> Iterator[SshHosts]:
    """Hosts ``gpu-1`` to ``gpu-N`` at ``subnet``.1 to .N; nothing of them is left at the end."""
    require_openssh()
    if os.geteuid() != 0 or not shutil.which("ip", path=SBIN):
        pytest.skip("namespace hosts need root and ip (apt install iproute2)")
    tag = f"ssh{os.getpid()}-{next(NUMBERS)}"
    folder = Path(tempfile.mkdtemp(prefix="ssh-", dir="/tmp"))
    places = {f"gpu-{n}": (f"{subnet}.{n}", f"{tag}-{n}") for n in range(1, count + 1)}
    try:
        _switch(tag, subnet)
        keys = Keys.make(folder)
        config = folder / "config"
        config.write_text("".join(keys.client(name, address, 22) for name, (address, _) in places.items()))
        with ExitStack() as servers:
            for name, (address, namespace) in places.items():
                _plug(tag, namespace, address)
                prefix = ("ip", "netns", "exec", namespace, *OWN, *NAMED, name)
                servers.enter_context(sshd(keys, name, address, [22], prefix=prefix))
            yield SshHosts(config, places)
    finally:
        _ip("link", "del", tag, check=False)
        for namespace in (tag, *(namespace for _, namespace in places.values())):
            _ip("netns", "del", namespace, check=False)
        remove(folder)


def _ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=check)


def _switch(tag: str, subnet: str) -> None:
    """A bridge in a namespace of its own, where no firewall stands between hosts, and this machine's cable to it."""
    inside: Sequence[str] = ("-n", tag, "link")
    _ip("netns", "add", tag)
    _ip(*inside, "add", "br0", "type", "bridge")
    _ip(*inside, "set", "br0", "up")
    _ip("link", "add", tag, "type", "veth", "peer", "name", "uplink", "netns", tag)
    _ip(*inside, "set", "uplink", "master", "br0", "up")
    _ip("address", "add", f"{subnet}.{UPLINK}/24", "dev", tag)
    _ip("link", "set", tag, "up")


def _plug(tag: str, namespace: str, address: str) -> None:
    port = f"port{address.rpartition('.')[2]}"
    _ip("netns", "add", namespace)
    _ip("-n", tag, "link", "add", port, "type", "veth", "peer", "name", NETDEV, "netns", namespace)
    _ip("-n", tag, "link", "set", port, "master", "br0", "up")
    _ip("-n", namespace, "address", "add", f"{address}/24", "dev", NETDEV)
    for device in (NETDEV, "lo"):
        _ip("-n", namespace, "link", "set", device, "up")
