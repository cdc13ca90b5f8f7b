"""Children of agent and supervisor: real processes of this machine."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from shoal.agent.supervise import _PRCTL, PR_SET_CHILD_SUBREAPER, Child, become_subreaper, reap_orphans

ENV = {"PATH": os.environ["PATH"]}


@pytest.fixture(autouse=True)
def subreaper() -> Iterator[None]:
    """This process adopts orphans as the agent does, for one test."""
    become_subreaper()
    yield
    reap_orphans()
    if _PRCTL is not None:
        _PRCTL(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def gone(pid: int) -> bool:
    """Whether the process has ended; a zombie that nobody has collected yet has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@asynccontextmanager
async def shell(script: str, folder: Path) -> AsyncIterator[Child]:
    """A running shell script, ended whatever happens."""
    child = Child.start(["sh", "-c", script], env=ENV, log=folder / "log")
    try:
        yield child
    finally:
        await child.stop(0.0)


async def until(true: Callable[[], object], child: Child) -> None:
    """Wait until it is so."""
    for _ in range(200):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(child.output())


STUCK = """
import ctypes, os, sys, threading, time
from pathlib import Path
from shoal.agent.supervise import Child
folder = Path(sys.argv[1])
os.mkfifo(folder / "library")
threading.Thread(target=ctypes.CDLL(None).dlopen, args=(bytes(folder / "library"), 2), daemon=True).start()
time.sleep(0.2)
child = Child.start(["true"], env={"PATH": os.environ["PATH"]}, log=folder / "log")
os._exit(child._process.wait(20))
"""


def test_a_child_starts_beside_a_thread_that_holds_locks(tmp_path: Path) -> None:
    """A thread that is stuck in the dynamic loader, and so holds its locks, keeps no child from starting."""
    done = subprocess.run([sys.executable, "-c", STUCK, tmp_path], timeout=40, check=False)
    assert done.returncode == 0


async def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    """The kernel is told to kill it when the process that started it ends, however that ends."""
    ask = "import ctypes; n = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(n), 0, 0, 0); print(n.value)"
    child = Child.start([sys.executable, "-c", ask], env=ENV, log=tmp_path / "log")
    assert (await child.wait(20), child.output()) == (0, f"{int(signal.SIGKILL)}\n")


async def test_code(tmp_path: Path) -> None:
    """A child's code is None while it runs, and its exit code afterwards."""
    os.mkfifo(tmp_path / "fifo")
    child = Child.start(["sh", "-c", "read line < fifo; exit 7"], env=ENV, log=tmp_path / "log", cwd=tmp_path)
    assert child.code is None
    assert await child.wait(0.0) is None
    (tmp_path / "fifo").write_text("go\n")
    assert await child.wait(5.0) == 7
    assert child.code == 7
    await child.stop(0.0)
    assert child.code == 7


async def test_environment_and_streams(tmp_path: Path) -> None:
    """A child has the given environment and folder, no input, and a session of its own."""
    script = "echo $A; pwd; cat; echo to stderr >&2"
    child = Child.start(["sh", "-c", script], env=ENV | {"A": "b c"}, log=tmp_path / "log", cwd=tmp_path)
    assert await child.wait(5.0) == 0
    assert child.output() == f"b c\n{tmp_path}\nto stderr\n"


async def test_own_session(tmp_path: Path) -> None:
    """A child leads a session of its own: Ctrl-C in our terminal does not reach it."""
    async with shell("exec sleep 60", tmp_path) as child:
        assert os.getsid(child.pid) == child.pid


async def test_what_is_born_while_it_ends_ends_too(tmp_path: Path) -> None:
    """A process that a child starts only when it is told to end is ended with it."""
    async with shell("trap 'sleep 60 & echo $!; exit' TERM; echo up; while :; do sleep 0.02; done", tmp_path) as child:
        await until(lambda: child.output() == "up\n", child)
        await child.stop(5.0)
        assert gone(int(child.output().split()[1]))


async def test_output_is_its_own(tmp_path: Path) -> None:
    """The log is appended to, and a child's output is only what it printed itself, at most the last bytes asked for."""
    (tmp_path / "log").write_text("of an earlier run\n")
    async with shell("echo one; echo two", tmp_path) as child:
        assert await child.wait(5.0) == 0
        assert (child.output(), child.output(4)) == ("one\ntwo\n", "two\n")
    assert (tmp_path / "log").read_text() == "of an earlier run\none\ntwo\n"


async def test_output_of_a_removed_log(tmp_path: Path) -> None:
    """A log that was removed reads as empty."""
    async with shell("echo one", tmp_path) as child:
        await child.wait(5.0)
        child.log.unlink()
        assert (child.output(), child.read_from(3)) == ("", ("", 3))


async def test_whole_lines(tmp_path: Path) -> None:
    """Lines are read once they are whole, each once, whatever bytes they hold."""
    async with shell("true", tmp_path) as child:
        await child.wait(5.0)
        log = child.log
        log.write_bytes(b"one\ntw")
        text, position = child.read_from(0)
        assert (text, position) == ("one\n", 4)
        assert child.read_from(position) == ("", 4)
        log.write_bytes(b"one\ntwo \xff\nthree")
        assert child.read_from(position) == ("two �\n", 10)


async def test_a_line_without_end(tmp_path: Path) -> None:
    """A line longer than a mebibyte does not keep what follows from being read."""
    async with shell("true", tmp_path) as child:
        await child.wait(5.0)
        child.log.write_bytes(b"x" * (3 << 20) + b"\nafter\n")
        position, text = 0, ""
        for _ in range(5):
            part, position = child.read_from(position)
            text += part
    assert text.endswith("x\nafter\n")


async def test_term(tmp_path: Path) -> None:
    """A child that obeys TERM ends itself, and has time to."""
    async with shell("trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.01; done", tmp_path) as child:
        await until(child.output, child)
        await child.stop(5.0)
        assert (child.code, child.output()) == (3, "up\nbye\n")


async def test_kill(tmp_path: Path) -> None:
    """A child that ignores TERM is killed after its grace."""
    async with shell("trap '' TERM; echo up; exec sleep 60", tmp_path) as child:
        await until(child.output, child)
        await child.stop(0.1)
        assert child.code == -signal.SIGKILL


async def test_grandchildren(tmp_path: Path) -> None:
    """What a child has started is ended with it, also where it ignores TERM."""
    script = "(trap '' TERM; echo up; exec sleep 60) & sleep 60 & echo up; wait"
    async with shell(script, tmp_path) as child:
        await until(lambda: child.output().count("\n") == 2, child)
        family = [process.pid for process in psutil.Process(child.pid).children(recursive=True)]
        assert len(family) == 2
        await child.stop(0.1)
    assert [pid for pid in family if not gone(pid)] == []


async def test_orphans_of_a_child_that_ended(tmp_path: Path) -> None:
    """What a child left behind when it ended by itself is ended, too."""
    child = Child.start(["sh", "-c", "sleep 60 & echo $!"], env=ENV, log=tmp_path / "log")
    assert await child.wait(5.0) == 0
    left = psutil.Process(int(child.output()))
    try:
        await child.stop(1.0)
        assert gone(left.pid)
    finally:
        if left.is_running():
            left.kill()


async def test_dies_with_its_parent(tmp_path: Path) -> None:
    """A child whose parent is killed dies with it."""
    script = (
        "import os, sys, signal, pathlib\n"
        "from shoal.agent.supervise import Child\n"
        "child = Child.start(['sleep', '60'], env=dict(os.environ), log=pathlib.Path(sys.argv[1]))\n"
        "print(child.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "log")], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    for _ in range(100):
        if gone(int(done.stdout)):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(done.stdout)
