"""Find and end what belongs to one run, and nothing else: processes by mark, folder or record; shared memory by age."""

import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from shoal.state.run import Proc

SHM = Path("/dev/shm")  # noqa: S108 (the kernel's folder, its files are told apart by owner, name, age and use)
# Names of the segments that vLLM leaves when its processes are killed: message queue, CPU collectives, semaphores.
SHM_NAMES = ("psm_*", "*-cpushm_*", "sem.mp-*", "sem.loky-*")


def alive(proc: Proc) -> psutil.Process | None:
    """The recorded process, if that very process still runs (an id alone may have been given to another)."""
    try:
        process = psutil.Process(proc.pid)
        same = abs(process.create_time() - proc.started) < 0.05
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def record(name: str, kind: str, pid: int) -> Proc:
    """The record of a process that was just started."""
    return Proc(name=name, kind=kind, pid=pid, started=psutil.Process(pid).create_time())


def belonging(run_id: str, folders: Iterable[Path]) -> list[psutil.Process]:
    """Every process of the run: marked in its environment, or living in or printing into one of its folders.

    Ray and vLLM rename their processes, which wipes the environment that the kernel shows; their working folder and
    standard output remain. A process with a terminal is somebody who looks at our files, and this process and its
    parents are never among them.
    """
    roots = tuple(f"{folder.resolve()}/" for folder in folders)
    me = {psutil.Process().pid, *(parent.pid for parent in psutil.Process().parents())}
    return [process for process in psutil.process_iter() if process.pid not in me and _belongs(process, run_id, roots)]


def _belongs(process: psutil.Process, run_id: str, roots: tuple[str, ...]) -> bool:
    base = Path("/proc") / str(process.pid)
    if f"SHOAL_RUN_ID={run_id}".encode() in _bytes(base / "environ").split(b"\0"):
        return True
    places = (_link(base / "cwd"), _link(base / "fd" / "1"), _link(base / "fd" / "2"))
    return any(f"{place}/".startswith(roots) for place in places if place) and not _has_terminal(process)


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


def _link(path: Path) -> str:
    try:
        return str(path.readlink()).removesuffix(" (deleted)")
    except OSError:
        return ""


def end(processes: list[psutil.Process], *, grace: float) -> list[psutil.Process]:
    """TERM, then KILL after ``grace`` seconds; returns what is still there."""
    for process in processes:
        _send(process, kill=False)
    _, left = psutil.wait_procs(processes, timeout=grace)
    for process in left:
        _send(process, kill=True)
    _, left = psutil.wait_procs(left, timeout=10)
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
    removed = [path for path in candidates if str(path) not in used]
    for path in removed:
        path.unlink(missing_ok=True)
    return sorted(path.name for path in removed)


def _ours(path: Path, uid: int, since: float) -> bool:
    try:
        about = path.lstat()
    except FileNotFoundError:
        return False
    return about.st_uid == uid and about.st_ctime >= since - 1


def _in_use(folder: Path) -> set[str]:
    """Paths below ``folder`` that any process of this machine has mapped or open, as far as we may look."""
    prefix = f"{folder}/".encode()
    used: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        for line in _bytes(process / "maps").splitlines():
            if prefix in line:
                used.add(line[line.index(prefix) :].decode(errors="replace").removesuffix(" (deleted)"))
        fds = process / "fd"
        try:
            used.update(link for fd in fds.iterdir() if (link := _link(fd)).startswith(f"{folder}/"))
        except OSError:
            continue
    return used


def wait_gone(proc: Proc, seconds: float) -> bool:
    """Whether the recorded process has ended within ``seconds``."""
    for _ in range(int(seconds / 0.1) + 1):
        if alive(proc) is None:
            return True
        time.sleep(0.1)
    return False
