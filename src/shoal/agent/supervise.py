"""Child processes of agent and supervisor: started so that they die with us, ended with all their descendants."""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import psutil

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
KILL = int(signal.SIGKILL)
LONGEST = 1 << 20
# Ids of children whose exit codes are collected by their Child.
_OWN: set[int] = set()
# Found here, once, and called without letting go of the interpreter's lock: we have threads, and between fork and exec
# there is nothing to look up and no lock to wait for that another thread may hold.
_PRCTL = ctypes.PyDLL(None).prctl if sys.platform == "linux" else None


def become_subreaper() -> None:
    """Adopt the orphans of our children: a raylet's workers survive it, and we must still be able to end them."""
    if _PRCTL is not None:
        _PRCTL(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _die_with_parent() -> None:
    if _PRCTL is not None:
        _PRCTL(PR_SET_PDEATHSIG, KILL, 0, 0, 0)


def _append_to(log: Path) -> BinaryIO:
    """The log; nothing where the disk has no room for a new file: a program is worth more than its log."""
    try:
        return log.open("ab")
    except OSError:
        return Path(os.devnull).open("ab")


class Child:
    """One running program with its log file."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path, offset: int) -> None:
        self._process = process
        self.log = log
        self.offset = offset
        self.started = time.time()

    @classmethod
    def start(
        cls,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        log: Path,
        cwd: Path | None = None,
        executable: str | None = None,
    ) -> "Child":
        """Start a program in a session of its own; its output is appended to ``log``.

        ``executable`` is the program where the first word is only the name that it goes by.
        """
        with _append_to(log) as out:
            # Read before the start: the child writes through the same open file and would move it.
            offset = out.tell() if out.seekable() else 0
            process = subprocess.Popen(
                tuple(argv),
                env=dict(env),
                cwd=cwd,
                executable=executable,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 (one system call, no lock)
            )
            _OWN.add(process.pid)
            return cls(process, log, offset)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Exit code; None while it runs."""
        return self._process.poll()

    def output(self, limit: int = 20_000) -> str:
        """What this child has printed so far, at most the last ``limit`` bytes."""
        try:
            with self.log.open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(self.offset, end - limit))
                return file.read().decode("utf-8", errors="replace")
        except OSError:
            return ""

    def read_from(self, position: int) -> tuple[str, int]:
        """Whole lines that were printed after byte ``position``, and where they end."""
        try:
            with self.log.open("rb") as file:
                file.seek(position)
                data = file.read(LONGEST)
        except OSError:
            return "", position
        # A line longer than that is given in pieces: it must not keep what follows from being read.
        end = data.rfind(b"\n") + 1 or (LONGEST if len(data) == LONGEST else 0)
        return data[:end].decode("utf-8", errors="replace"), position + end

    async def wait(self, seconds: float) -> int | None:
        """The exit code, or None where it still runs after ``seconds``."""
        for _ in range(int(seconds / 0.05) + 1):
            if self.code is not None:
                break
            await asyncio.sleep(0.05)
        return self.code

    async def stop(self, grace: float) -> None:
        """TERM, wait ``grace`` seconds, KILL; then the same for every descendant that is left."""
        family = descendants(self.pid) if self.code is None else []
        if self.code is None:
            _signal(self.pid, signal.SIGTERM)
            await self.wait(grace)
        if self.code is None:
            family += descendants(self.pid)
            _signal(self.pid, signal.SIGKILL)
            await self.wait(5)
        # One that was born since TERM is in no list yet, but in the session.
        await end_all(list({*family, *orphans(self.pid)}), grace=1.0)


def descendants(pid: int) -> list[psutil.Process]:
    """All processes below ``pid``."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def orphans(leader: int) -> list[psutil.Process]:
    """What is left of the session of a child that has ended; nothing where its id belongs to another by now."""
    if psutil.pid_exists(leader):
        return []
    return [process for process in psutil.process_iter() if _session(process.pid) == leader]


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


async def end_all(processes: Sequence[psutil.Process], *, grace: float) -> list[psutil.Process]:
    """TERM, then KILL after ``grace`` seconds; returns those that are still there. Reused ids are never hit."""
    alive = [process for process in processes if process.is_running()]
    for process in alive:
        _terminate(process)
    _, alive = await asyncio.to_thread(psutil.wait_procs, alive, timeout=grace)
    for process in alive:
        _kill(process)
    _, alive = await asyncio.to_thread(psutil.wait_procs, alive, timeout=5)
    return alive


def _terminate(process: psutil.Process) -> None:
    try:
        process.terminate()
    except psutil.NoSuchProcess:
        return


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def reap_orphans() -> None:
    """Collect adopted processes that have ended, so that none stays as a zombie. Never touches our own children."""
    for process in psutil.Process().children():
        try:
            if process.status() == psutil.STATUS_ZOMBIE and process.pid not in _OWN:
                os.waitpid(process.pid, os.WNOHANG)
        except (psutil.NoSuchProcess, ChildProcessError):
            continue
