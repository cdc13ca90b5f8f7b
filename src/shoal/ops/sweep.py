"""Find and end what belongs to one run, and nothing else: processes by mark, folder or record; shared memory by age."""

from collections.abc import Iterable
from pathlib import Path

import psutil

from shoal.facts.process import link, others, places, read_boot_id, read_stat
from shoal.host.local import LocalHost
from shoal.state.run import Proc

SHM = Path("/dev/shm")  # noqa: S108 (the kernel's folder, its files are told apart by owner, name, age and use)
# Names of the segments that vLLM leaves when its processes are killed: message queue, CPU collectives, semaphores.
SHM_NAMES = ("psm_*", "*-cpushm_*", "sem.mp-*", "sem.loky-*")


def alive(proc: Proc, boot_id: str) -> psutil.Process | None:
    """The process recorded in that boot, if that very process still runs.

    An id alone may have been given to another. Ticks, unlike the time of day, do not move when the clock is set.
    """
    host = LocalHost()
    try:
        process = psutil.Process(proc.pid)
    except psutil.NoSuchProcess:
        return None
    stat = read_stat(host, proc.pid)
    same = stat is not None and not stat.ended and stat.ticks == proc.ticks and read_boot_id(host) == boot_id
    return process if same else None


def record(name: str, kind: str, pid: int) -> Proc:
    """The record of a process that was just started; one that is gone already has ticks that none has."""
    stat = read_stat(LocalHost(), pid)
    return Proc(name=name, kind=kind, pid=pid, ticks=stat.ticks if stat else -1)


def belonging(run_id: str, folders: Iterable[Path]) -> list[psutil.Process]:
    """Every process of the run: marked in its environment, or living in or printing into one of its folders.

    Ray and vLLM rename their processes, which wipes the environment that the kernel shows; their working folder and
    standard output remain. A process with a terminal is somebody who looks at our files, and this process and its
    parents are never among them.
    """
    roots = tuple(f"{folder.resolve()}/" for folder in folders)
    return [process for process in others() if _belongs(process, run_id, roots)]


def _belongs(process: psutil.Process, run_id: str, roots: tuple[str, ...]) -> bool:
    environ = Path("/proc") / str(process.pid) / "environ"
    if f"SHOAL_RUN_ID={run_id}".encode() in _bytes(environ).split(b"\0"):
        return True
    return any(f"{place}/".startswith(roots) for place in places(process.pid)) and not _has_terminal(process)


def _has_terminal(process: psutil.Process) -> bool:
    try:
        return process.terminal() is not None
    except psutil.NoSuchProcess:
        return False


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def end(processes: list[psutil.Process], *, grace: float) -> list[psutil.Process]:
    """TERM, then KILL after ``grace`` seconds; returns what is still there."""
    for process in processes:
        _send(process, kill=False)
    _, left = psutil.wait_procs(processes, timeout=grace)
    for process in left:
        _send(process, kill=True)
    _, left = psutil.wait_procs(left, timeout=10)
    return left


def kill(processes: list[psutil.Process]) -> list[psutil.Process]:
    """KILL in that order, at once and without asking; returns what is still there after ten seconds."""
    for process in processes:
        _send(process, kill=True)
    _, left = psutil.wait_procs(processes, timeout=10)
    return left


def _send(process: psutil.Process, *, kill: bool) -> None:
    try:
        process.kill() if kill else process.terminate()
    except psutil.NoSuchProcess:
        return


def remove_shared_memory(since: float, folder: Path = SHM) -> list[str]:
    """Remove segments of ours: vLLM's names, our user, born in this run, and used by no living process."""
    me = psutil.Process().uids().effective
    candidates = [path for pattern in SHM_NAMES for path in folder.glob(pattern) if _ours(path, me, since)]
    if not candidates:
        return []
    used = _in_use(folder)
    removed = [path for path in candidates if _inode(path) not in used]
    for path in removed:
        path.unlink(missing_ok=True)
    return sorted(path.name for path in removed)


def _ours(path: Path, uid: int, since: float) -> bool:
    try:
        about = path.lstat()
    except FileNotFoundError:
        return False
    return about.st_uid == uid and about.st_ctime >= since - 1


def _inode(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return None


def _in_use(folder: Path) -> set[int]:
    """Inodes of files below ``folder`` that any process of this machine has mapped or open, as far as we may look.

    Inodes, for a semaphore is mapped under the name that it was made by: glibc gives it its own only afterwards.
    """
    prefix = f"{folder}/".encode()
    used: set[int] = set()
    for process in Path("/proc").glob("[0-9]*"):
        # address perms offset dev inode path
        used |= {int(line.split(maxsplit=5)[4]) for line in _bytes(process / "maps").splitlines() if prefix in line}
        try:
            used |= {fd.stat().st_ino for fd in (process / "fd").iterdir() if link(fd).startswith(f"{folder}/")}
        except OSError:
            continue
    return used
