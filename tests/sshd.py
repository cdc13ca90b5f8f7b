"""A real OpenSSH server for tests, with keys, known hosts and a client's config of its own in one folder."""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

SBIN = f"{os.environ['PATH']}:/usr/sbin:/sbin"

# What a login shell reads there is nobody's business but its owner's: the server sees an empty home, but for a Python
# that lies in it, and shared memory of its own.
OWN_HOME = """set -e
home=$1; python=$2; shift 2
case "$python/" in
"$home"/*)
  keep=$(mktemp -d /tmp/keep.XXXXXX)
  mount --bind "$python" "$keep"
  mount -t tmpfs none "$home"
  mkdir -p "$python"
  mount --move "$keep" "$python"
  rmdir "$keep" ;;
*) mount -t tmpfs none "$home" ;;
esac
mount -t tmpfs none /dev/shm
exec "$@"
"""
HOMELESS = ("unshare", "--mount", "--", "sh", "-c", OWN_HOME, "home", str(Path.home()), sys.base_prefix)

SERVER = """\
ListenAddress {address}
{ports}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication yes
PermitRootLogin yes
{forced}
"""

CLIENT = """\
Host {name}
  HostName {address}
  Port {port}
  HostKeyAlias node
Host *
  User {user}
  IdentityFile {folder}/user
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile {folder}/known
  GlobalKnownHostsFile none
"""


def require_openssh() -> None:
    """Skip where there is no OpenSSH; as root, `make test` installs it."""
    if missing := [name for name in ("ssh", "ssh-keygen", "sshd") if shutil.which(name, path=SBIN) is None]:
        pytest.skip(f"not installed: {', '.join(missing)} (apt install openssh-client openssh-server)")


def make_key(file: Path) -> str:
    """A key pair in ``file`` and ``file.pub``; the public one."""
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(file)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    return file.with_suffix(".pub").read_text()


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listens just now."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in held]
    for server in held:
        server.close()
    return ports


@dataclass(frozen=True)
class Keys:
    """A folder with the server's key ``host``, the client's ``user``, and a ``known`` that knows the server."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> "Keys":
        make_key(folder / "user")
        (folder / "known").write_text(f"node {make_key(folder / 'host')}")
        return cls(folder)

    def client(self, name: str, address: str, port: int) -> str:
        """An ssh config by which ``name`` is the server at that address."""
        return CLIENT.format(name=name, address=address, port=port, user=getpass.getuser(), folder=self.folder)


@contextmanager
def sshd(
    keys: Keys, name: str, address: str, ports: Sequence[int], *, forced: str = "", prefix: Sequence[str] = (),
    own_home: bool = True,
) -> Iterator[Path]:  # fmt: skip
    """A server that answers on all ports; its log. ``forced`` is more of its config, ``prefix`` where it is run.

    ``own_home``: its users have an empty home, and shared memory of their own.
    """
    config, log = keys.folder / f"{name}.sshd_config", keys.folder / f"{name}.log"
    told = "\n".join(f"Port {port}" for port in ports)
    config.write_text(SERVER.format(address=address, ports=told, folder=keys.folder, forced=forced))
    if os.geteuid() == 0:
        prefix = (*prefix, *(HOMELESS if own_home else ()))
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where it locks itself in
    program = shutil.which("sshd", path=SBIN) or "sshd"
    with log.open("wb") as out:
        server = subprocess.Popen(
            [*prefix, program, "-D", "-e", "-f", str(config)], stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        listening(log, len(ports), server)
        yield log
    finally:
        # With its sessions, each of which would live as long as the client's kept connection.
        for process in (*psutil.Process(server.pid).children(recursive=True), server):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        server.wait(10)


def listening(log: Path, ports: int, server: "subprocess.Popen[bytes]") -> None:
    """Wait until the server has said that it listens on all its ports."""
    end = time.monotonic() + 20
    while log.read_text().count("Server listening on") < ports:
        assert server.poll() is None, f"sshd ended with {server.returncode}: {log.read_text()}"
        assert time.monotonic() < end, f"sshd does not listen: {log.read_text()}"
        time.sleep(0.02)


def remove(folder: Path) -> None:
    """Remove a folder with control sockets: each kept connection that ends takes its own away, maybe at this moment."""
    while folder.exists():
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            continue  # there is less to remove than a moment ago
