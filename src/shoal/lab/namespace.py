"""Namespace hosts: hosts of their own as far as processes can see, made by root on one machine.

Each has an address on a wire of its own, a hostname, a process tree, ``/dev/shm``, ``/tmp/ray`` and a disk of limited
size. The disk outlives a reboot; processes and ``/dev/shm`` do not.
"""

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from shoal.errors import CommandFailed, PreconditionFailed
from shoal.host.local import LocalHost, spawn_daemon
from shoal.lab.network import Argv, Net
from shoal.lab.record import HostRecord
from shoal.ops import sweep

DISK_MB, SHM_MB = 512, 2048
RAY = Path("/tmp/ray")  # noqa: S108 (Ray's own default, a mount point inside each host)
TOOLS = ("ip", "unshare", "nsenter", "mount", "umount")
# Runs as the host's first process: $1 hostname, $2 disk, $3 list of hosts; the rest is its program.
BOOT = f"""set -e
hostname "$1"
mount -t tmpfs -o size={SHM_MB}m,mode=1777 shoal-shm /dev/shm
mkdir -p {RAY}
mount --bind "$2/ray" {RAY}
mount --bind "$3" /etc/hosts
shift 3
exec "$@"
"""
# A service with a process tree of its own, as a container has: when it ends, all that it started ends.
CONTAINER: Argv = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--")


def require(subnet: str) -> None:
    """Check that namespace hosts can be made here.

    Raises:
        PreconditionFailed: no root, a tool is missing, or the subnet is in use.
    """
    if os.geteuid() != 0:
        raise PreconditionFailed("namespace hosts need root", fix="sudo, or: shoal lab up --hosts loopback")
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        raise PreconditionFailed(f"not installed: {', '.join(missing)}", fix="apt-get install iproute2 util-linux")
    addresses = [item.address for items in psutil.net_if_addrs().values() for item in items]
    if used := [address for address in addresses if address.startswith(f"{subnet}.")]:
        raise PreconditionFailed(
            f"{subnet}.0/24 is in use: this machine has {used[0]}", fix="choose another: shoal lab up --subnet 10.77.0"
        )


def carry_out(commands: Sequence[Argv]) -> None:
    """Run commands one after the other; CommandFailed at the first that fails."""
    for argv in commands:
        LocalHost().run(argv, timeout=20)


def attempt(argv: Argv) -> bool:
    """Run a command that may fail because there is nothing to do for it; whether it did something."""
    return LocalHost().run(argv, timeout=20, ok=range(256)).code == 0


def make_disk(host: HostRecord) -> None:
    """The host's disk: a small file system of its own, which can be full without anybody else noticing."""
    carry_out([("mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=0755", "shoal-disk", str(host.disk))])
    fill_disk(host)


def fill_disk(host: HostRecord) -> None:
    """The folders of a new disk."""
    for name in ("ray", "state/logs", "tmp"):
        (host.disk / name).mkdir(parents=True)


def remove_disk(host: HostRecord) -> None:
    """Take the disk away, with what is on it."""
    if host.disk.is_mount() and not attempt(("umount", str(host.disk))):
        carry_out([("umount", "-l", str(host.disk))])


def is_mounted_on(path: Path) -> bool:
    """Whether any process has something mounted there, in whatever mount namespace.

    To remove such a folder would silently detach those mounts: another lab's hosts would then all share one folder.
    """
    for told in Path("/proc").glob("[0-9]*/mountinfo"):
        try:
            lines = told.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue  # it ended
        if any(line.split()[4] == str(path) for line in lines):
            return True
    return False


def hosts_file(hosts: Sequence[HostRecord]) -> str:
    """An ``/etc/hosts`` in which every host finds the others."""
    lines = ["127.0.0.1 localhost", *(f"{host.address} {host.name}" for host in hosts)]
    return "\n".join(lines) + "\n"


def boot(net: Net, host: HostRecord, program: Argv, env: Mapping[str, str], log: Path) -> HostRecord:
    """Start the host's first process; the host with that process on record."""
    argv = (
        "ip", "netns", "exec", net.namespace(host.name),
        "unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
        "sh", "-c", BOOT, "boot", host.name, str(host.disk), str(Path(host.folder).parent / "hosts"), *program,
    )  # fmt: skip
    pid = spawn_daemon(argv, env=env, cwd=Path(host.folder), log=log)
    return host.model_copy(update={"boot": sweep.record(host.name, "boot", pid)})


def inner(host: HostRecord, boot_id: str, *, wait: float = 5.0) -> int:
    """The process id, on this machine, of the host's first process.

    Raises:
        CommandFailed: the host is off.
    """
    end = time.monotonic() + wait
    while outer := sweep.alive(host.boot, boot_id) if host.boot else None:
        if children := outer.children():
            return children[0].pid
        if time.monotonic() > end:
            break
        time.sleep(0.05)
    raise CommandFailed(f"{host.name} is off", fix="shoal lab status")


def enter_argv(pid: int) -> Argv:
    """What a command is prefixed with to run inside the host."""
    return ("nsenter", "--target", str(pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--")


def container(host: HostRecord, boot_id: str) -> psutil.Process:
    """The first process of the host's container: what a kill of that container hits.

    Raises:
        CommandFailed: there is none now.
    """
    first = sweep.alive(host.boot, boot_id) if host.boot else None
    for process in first.children(recursive=True) if first else ():
        if tuple(process.cmdline()[: len(CONTAINER)]) == CONTAINER and (inside := process.children()):
            return inside[0]
    raise CommandFailed(f"no container runs on {host.name} now", fix="shoal lab status")
