"""What belongs to a run is found, and nothing else."""

import mmap
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from shoal.errors import AlreadyRunning
from shoal.facts.process import read_boot_id, read_stat
from shoal.host.local import LocalHost
from shoal.ops import local, sweep
from shoal.ops.sweep import alive, belonging, end, record, remove_shared_memory
from shoal.state import run as runs
from shoal.state.run import Proc, RunRecord

ENV = {"PATH": os.environ["PATH"]}
BOOT = read_boot_id(LocalHost())


@contextmanager
def sleeper(cwd: str = "/", out: Path | None = None, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that sleeps, with that folder, standard output and environment."""
    with ExitStack() as stack:
        stdout = stack.enter_context(out.open("ab")) if out else subprocess.DEVNULL
        process = subprocess.Popen(
            ["sleep", "60"],
            cwd=cwd,
            env=ENV | env,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def run_id() -> str:
    return secrets.token_hex(8)


def found(run_id: str, *folders: Path) -> set[int]:
    return {process.pid for process in belonging(run_id, folders)}


def test_marked(run_id: str, tmp_path: Path) -> None:
    """A process with the run's mark is found; one with no mark, or another's, is not."""
    with sleeper(SHOAL_RUN_ID=run_id) as ours, sleeper(), sleeper(SHOAL_RUN_ID=f"{run_id}0"), sleeper(X=run_id):
        assert found(run_id, tmp_path) == {ours.pid}


def test_living_in_our_folder(run_id: str, tmp_path: Path) -> None:
    """A process in our folder, or below it, is found; one in a folder whose name only begins alike is not."""
    ours, below, alike = tmp_path / "run", tmp_path / "run" / "a", tmp_path / "run2"
    below.mkdir(parents=True)
    alike.mkdir()
    with sleeper(str(ours)) as one, sleeper(str(below)) as two, sleeper(str(alike)), sleeper(str(tmp_path)):
        assert found(run_id, ours) == {one.pid, two.pid}


def test_living_in_a_removed_folder(run_id: str, tmp_path: Path) -> None:
    """A process in a folder of ours that was removed is still found."""
    below = tmp_path / "run" / "a"
    below.mkdir(parents=True)
    with sleeper(str(below)) as ours:
        below.rmdir()
        assert found(run_id, tmp_path / "run") == {ours.pid}


def test_printing_into_our_log(run_id: str, tmp_path: Path) -> None:
    """A process that prints into a log of ours is found, also after the log was removed."""
    logs = tmp_path / "logs"
    logs.mkdir()
    with sleeper(out=logs / "vllm.log") as ours, sleeper(out=tmp_path / "other.log"):
        assert found(run_id, logs) == {ours.pid}
        (logs / "vllm.log").unlink()
        assert found(run_id, logs) == {ours.pid}


def test_never_ourselves(run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process and its parents are never found, wherever they live."""
    monkeypatch.chdir(tmp_path)
    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    with sleeper(str(tmp_path)) as child:
        assert found(run_id, tmp_path) == {child.pid}
        assert found(run_id, Path("/")) & mine == set()


def test_nothing(run_id: str) -> None:
    """A run without processes and folders has nothing."""
    assert found(run_id) == set()


def test_alive() -> None:
    """A recorded process is alive until it has ended, also while nobody has collected it."""
    with sleeper() as process:
        proc = record("head", "agent", process.pid)
        stat = read_stat(LocalHost(), process.pid)
        assert stat is not None
        assert proc == Proc(name="head", kind="agent", pid=process.pid, ticks=stat.ticks)
        assert alive(proc, BOOT) == psutil.Process(process.pid)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert alive(proc, BOOT) is None
    assert alive(proc, BOOT) is None


def test_a_reused_id() -> None:
    """A process that was given the id of ours, but began at another time, is not ours."""
    with sleeper() as process:
        proc = record("head", "agent", process.pid)
        assert alive(proc.model_copy(update={"ticks": proc.ticks - 1}), BOOT) is None


def test_a_clock_that_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process stays alive when the time of day steps, on which psutil's time of its start depends."""
    with sleeper() as process:
        proc = record("head", "agent", process.pid)
        monkeypatch.setattr(psutil.Process, "create_time", lambda _: time.time() + 3600)
        assert alive(proc, BOOT) == psutil.Process(process.pid)


def test_a_process_that_is_gone_when_it_is_recorded() -> None:
    """A process that ended before it was recorded is on record, and not alive."""
    with sleeper() as process:
        process.kill()
        process.wait()
        proc = record("head", "agent", process.pid)
        assert (proc.ticks, alive(proc, BOOT)) == (-1, None)


def test_a_record_from_before_a_reboot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a reboot nothing of a record is alive: the next start ends no process, and removes the run's files."""
    monkeypatch.setattr(sweep, "remove_shared_memory", lambda since: [])
    env = {"SHOAL_STATE_DIR": str(tmp_path)}
    folder, temp = local.cluster_dir(env), tmp_path / "temp"
    folder.mkdir()
    temp.mkdir()
    with sleeper() as process:
        runs.save(folder, run_of(record("head", "agent", process.pid), "another boot", temp))
        local.refuse_second(env)
        assert process.poll() is None
        assert (runs.load(folder), temp.exists()) == (None, False)


def test_a_record_of_this_boot(tmp_path: Path) -> None:
    """In the same boot, a living process of the record refuses a second cluster."""
    env = {"SHOAL_STATE_DIR": str(tmp_path)}
    local.cluster_dir(env).mkdir()
    with sleeper() as process:
        runs.save(local.cluster_dir(env), run_of(record("head", "agent", process.pid), BOOT, tmp_path / "temp"))
        with pytest.raises(AlreadyRunning):
            local.refuse_second(env)


def run_of(proc: Proc, boot_id: str, temp: Path) -> RunRecord:
    return RunRecord(
        run_id=secrets.token_hex(8),
        boot_id=boot_id,
        cluster="local",
        created=0.0,
        model="smollm2",
        endpoint="http://127.0.0.1:8000/v1",
        serve_url="http://127.0.0.1:8701",
        temp_dir=str(temp),
        log_dir=str(temp),
        api_key_file=str(temp / "api.key"),
        nodes=(),
        procs=(proc,),
    )


def test_end() -> None:
    """Processes are ended by TERM, and those that have ended already are no fault."""
    with sleeper() as one, sleeper() as two:
        processes = [psutil.Process(one.pid), psutil.Process(two.pid)]
        one.kill()
        one.wait()
        assert end(processes, grace=5.0) == []
        assert not psutil.pid_exists(two.pid)


def test_end_by_force() -> None:
    """A process that ignores TERM is killed."""
    script = "trap '' TERM; echo; exec sleep 60"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert end([psutil.Process(process.pid)], grace=0.05) == []


OURS = ("psm_1a2b3c4d", "0-cpushm_5", "sem.mp-abcd", "sem.loky-1-x")


def shm(folder: Path, *names: str) -> list[Path]:
    """A folder that stands for /dev/shm, with segments that were born now."""
    paths = [folder / name for name in names]
    for path in paths:
        path.write_bytes(b"\0" * mmap.PAGESIZE)
    return paths


def test_our_segments_go(tmp_path: Path) -> None:
    """Segments of vLLM's names that were born in this run and that nobody uses are removed."""
    shm(tmp_path, *OURS)
    assert remove_shared_memory(time.time() - 5, tmp_path) == sorted(OURS)
    assert list(tmp_path.iterdir()) == []


def test_foreign_names_stay(tmp_path: Path) -> None:
    """Segments of other names stay."""
    names = ("plasma", "pulse-shm-1", "nccl-abc", "sem.other", "xpsm_1", "cpushm_5")
    shm(tmp_path, *names)
    assert remove_shared_memory(0.0, tmp_path) == []
    assert {path.name for path in tmp_path.iterdir()} == set(names)


def test_old_segments_stay(tmp_path: Path) -> None:
    """A segment that is older than the run belongs to another."""
    shm(tmp_path, *OURS)
    assert remove_shared_memory(time.time() + 60, tmp_path) == []


def test_used_segments_stay(tmp_path: Path) -> None:
    """A segment that a living process has open or mapped stays, until it no longer has."""
    opened, mapped, _ = shm(tmp_path, "psm_open", "psm_mapped", "psm_free")
    with mapped.open("r+b") as file:
        area = mmap.mmap(file.fileno(), 0)
    with opened.open("rb"), area:
        assert remove_shared_memory(0.0, tmp_path) == ["psm_free"]
    assert remove_shared_memory(0.0, tmp_path) == ["psm_mapped", "psm_open"]


def test_a_semaphore_in_use_stays(tmp_path: Path) -> None:
    """A semaphore is mapped under the name that it was made by, which is gone: it is in use all the same."""
    made, named = tmp_path / "sem.Qx7aB2", tmp_path / "sem.mp-in_use"
    made.write_bytes(b"x")
    with made.open("r+b") as file:
        area = mmap.mmap(file.fileno(), 0)
    os.link(made, named)
    made.unlink()
    with area:
        assert remove_shared_memory(0.0, tmp_path) == []
    assert remove_shared_memory(0.0, tmp_path) == ["sem.mp-in_use"]


def test_no_segments(tmp_path: Path) -> None:
    """A folder that is empty or absent has nothing to remove."""
    assert remove_shared_memory(0.0, tmp_path) == remove_shared_memory(0.0, tmp_path / "absent") == []
