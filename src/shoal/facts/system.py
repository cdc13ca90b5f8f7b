"""Memory, disk and ports of this machine."""

from dataclasses import dataclass

import psutil

from shoal.facts.meminfo import parse_meminfo
from shoal.host.base import Host


@dataclass(frozen=True)
class Memory:
    """Memory in bytes; ``limit`` is the control group's where one is set."""

    total: int
    available: int
    limit: int | None = None

    @property
    def usable(self) -> int:
        """What a new process may hope for."""
        return self.available if self.limit is None else min(self.available, self.limit)


def read_memory(host: Host) -> Memory | None:
    """The machine's memory; None where ``/proc/meminfo`` cannot be read."""
    info = parse_meminfo(host.read("/proc/meminfo") or "")
    if "MemTotal" not in info or "MemAvailable" not in info:
        return None
    return Memory(info["MemTotal"], info["MemAvailable"], _cgroup_room(host))


def _cgroup_room(host: Host) -> int | None:
    """Bytes left in the control group at the container's root; None where it sets no limit."""
    limit = (host.read("/sys/fs/cgroup/memory.max") or "").strip()
    used = (host.read("/sys/fs/cgroup/memory.current") or "").strip()
    return max(0, int(limit) - int(used)) if limit.isdigit() and used.isdigit() else None


@dataclass(frozen=True)
class Listener:
    """A listening TCP socket and its owner; pid None where only root may know."""

    address: str
    port: int
    pid: int | None
    program: str


def listeners() -> tuple[Listener, ...]:
    """All listening TCP sockets of this machine (network namespace)."""
    return tuple(
        Listener(conn.laddr.ip, conn.laddr.port, conn.pid, _program(conn.pid))
        for conn in psutil.net_connections("tcp")
        if conn.status == psutil.CONN_LISTEN and conn.laddr
    )


def _program(pid: int | None) -> str:
    if pid is None:
        return "another user's process"
    try:
        return psutil.Process(pid).name()
    except psutil.NoSuchProcess:
        return "a process that just ended"


def overlaps(listening: str, wanted: str) -> bool:
    """Whether a socket on address ``listening`` keeps another from listening on ``wanted``."""
    return listening in {wanted, "0.0.0.0", "::", f"::ffff:{wanted}"}  # noqa: S104 (compared, not bound)
