"""Clusters for the tests: one that is shared, one per test, and somebody else's Ray beside them."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.engine.cluster import BIN, PORTS, Chair, wait_for


@pytest.fixture(scope="session")
def foreign_ray() -> Iterator[int]:
    """Somebody else's Ray on this machine, on Ray's usual ports; it must live through everything. Its process id."""
    folder = Path(tempfile.mkdtemp(prefix="foreign-", dir="/tmp"))
    env = {**os.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    argv = [
        str(BIN / "ray"), "start", "--head", "--block", "--no-monitor", "--node-ip-address=127.0.0.1", "--port=6379",
        "--include-dashboard=false", "--num-cpus=1", "--object-store-memory=100000000", f"--temp-dir={folder}",
    ]  # fmt: skip
    with (folder / "log").open("wb") as out:
        ray = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: b"--block" in (folder / "log").read_bytes(), 60, "the foreign Ray is up")
        yield ray.pid
        assert ray.poll() is None, "the foreign Ray was ended"
    finally:
        family = [psutil.Process(ray.pid), *psutil.Process(ray.pid).children(recursive=True)]
        for process in family:
            process.send_signal(signal.SIGKILL)
        ray.wait(10)
        psutil.wait_procs(family, timeout=10)
        subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.fixture
def chair(tmp_path: Path) -> Iterator[Chair]:
    """A chair whose cluster is taken down in any case."""
    seat = Chair(tmp_path / "state")
    yield seat
    seat.shoal("down")


@pytest.fixture(scope="session")
def served(foreign_ray: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chair]:
    """One cluster of two nodes for all tests that only use it; ``events`` are the JSON lines of its bring-up."""
    seat = Chair(tmp_path_factory.mktemp("served") / "state")
    done = seat.shoal("up", "--local", "--detach", "--json", *PORTS, timeout=600)
    try:
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        (seat.state / "events").write_text(done.stdout)
        yield seat
    finally:
        seat.shoal("down")
