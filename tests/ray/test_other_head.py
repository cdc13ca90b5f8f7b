"""A head of another Ray version: a worker's agent names both versions in one line."""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from shoal.facts.versions import versions

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
]

GCS = "127.0.0.1:29500"
# A real head, but that it writes another version of itself into the GCS.
HEAD = """\
import sys
import ray
ray.__version__ = "2.49.1"
from ray.scripts.scripts import main
sys.argv = ["ray", *sys.argv[1:]]
main()
"""
START = (
    "start", "--head", "--block", "--no-monitor", "--node-ip-address=127.0.0.1", "--port=29500", "--num-cpus=1",
    "--ray-client-server-port=29507", "--include-dashboard=false", "--object-store-memory=100000000",
    "--disable-usage-stats", "--min-worker-port=29520", "--max-worker-port=29599",
)  # fmt: skip
WORKER = {
    "RAY_MODE": "worker",
    "VLLM_HOST_IP": "127.0.0.2",
    "RAY_ADDRESS": GCS,
    "RAY_AUTH_MODE": "disabled",
    "SHOAL_AGENT_PORT": "29798",
    "SHOAL_PORT_BASE": "29600",
    "SHOAL_NUM_GPUS": "1",
    "SHOAL_RESTARTS": "0",
    "SHOAL_RUN_ID": "other-head",
}


@contextmanager
def running(argv: list[str], env: dict[str, str], log: Path) -> Iterator[None]:
    """A program in a session of its own; all of it is ended."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with log.open("wb") as out:
        process = subprocess.Popen(
            argv, env=kept | env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        for left in (one for one in family if one.is_running()):
            left.kill()
        process.kill()
        process.wait(10)


def said(log: Path, words: str) -> str:
    """The first line of a log with these words in it."""
    end = time.monotonic() + 90
    while time.monotonic() < end:
        if found := [line for line in log.read_text().splitlines() if words in line]:
            return found[0]
        time.sleep(0.3)
    pytest.fail(f"no {words!r} in:\n{log.read_text()[-3000:]}")


def test_a_head_of_another_version_is_named() -> None:
    """The node does not join; one line has both versions and what to do."""
    with tempfile.TemporaryDirectory(prefix="shoal-head-", dir="/tmp") as name, ExitStack() as stack:
        folder = Path(name)
        head = [sys.executable, "-c", HEAD, *START, f"--temp-dir={folder}/h"]
        env = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "disabled"}
        stack.enter_context(running(head, env, folder / "head.log"))
        own = {"SHOAL_STATE_DIR": str(folder / "w"), "SHOAL_RAY_TEMP_DIR": str(folder / "r")}
        stack.enter_context(running([sys.executable, "-m", "shoal", "agent"], WORKER | own, folder / "worker.log"))
        here = versions()
        assert said(folder / "worker.log", "FAILED").split(" ", 1)[1].strip() == (
            f"FAILED     error: ray start ended: the head has Ray 2.49.1 on Python {here.python}, this node has "
            f"Ray {here.ray} on Python {here.python}; set the same SHOAL_IMAGE on both; "
            "gave up after 0 restarts within 10 minutes"
        )
