"""The processes of this node's Ray, remembered on disk: an agent that was killed must find its orphans again.

Ray's own processes die with ``ray start``; a rank that is stopped or hangs may stay, and hold its GPU. A process is
known by its id together with its start in clock ticks since the boot, so that nobody else's is ever hit.
"""

from collections.abc import Iterable
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from shoal.agent.supervise import descendants, end_all
from shoal.errors import ShoalError
from shoal.facts.process import read_boot_id, read_stat
from shoal.host.base import Host


class Member(BaseModel):
    """One process."""

    model_config = ConfigDict(frozen=True)

    pid: int
    ticks: int


class Family(BaseModel):
    """What an agent had started, and what that had started, in one boot of the machine."""

    model_config = ConfigDict(frozen=True)

    boot_id: str
    members: tuple[Member, ...] = ()


def of(host: Host, pids: Iterable[int]) -> Family:
    """Processes as a family; those that have ended meanwhile are left out."""
    stats = {pid: read_stat(host, pid) for pid in sorted(set(pids))}
    members = tuple(Member(pid=pid, ticks=stat.ticks) for pid, stat in stats.items() if stat and not stat.ended)
    return Family(boot_id=read_boot_id(host), members=members)


def below(host: Host, pid: int) -> Family:
    """A process and everything below it."""
    return of(host, [pid, *(process.pid for process in descendants(pid))])


def living(host: Host, family: Family) -> list[psutil.Process]:
    """Those of a family that still run: the same id, the same start, in the same boot."""
    if family.boot_id != read_boot_id(host):
        return []
    out = []
    for member in family.members:
        stat = read_stat(host, member.pid)
        if stat is None or stat.ended or stat.ticks != member.ticks:
            continue
        try:
            out.append(psutil.Process(member.pid))
        except psutil.NoSuchProcess:
            continue
    return out


class FamilyFile:
    """A family in a file; a disk that is full or a file that is damaged costs the memory, nothing more."""

    def __init__(self, host: Host, path: Path) -> None:
        self._host = host
        self._path = path
        self._last: Family | None = None

    def read(self) -> Family:
        """What was remembered; an empty family where there is nothing to be read."""
        try:
            return Family.model_validate_json(self._host.read(str(self._path)) or "")
        except ValidationError:
            return Family(boot_id="")

    def remember(self, family: Family) -> None:
        """Write it where it has changed."""
        if family == self._last:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._host.write(str(self._path), family.model_dump_json() + "\n", mode=0o600)
        except (OSError, ShoalError):
            return
        self._last = family

    async def end_orphans(self) -> tuple[list[psutil.Process], list[psutil.Process]]:
        """End what an earlier agent left: those that were found, and those that could not be ended."""
        found = living(self._host, self.read())
        left = await end_all(found, grace=1.0)
        self.remember(Family(boot_id=read_boot_id(self._host)))
        return found, left
