"""The fabric bench on a real Ray of two nodes, over Gloo: rows, pairs, picture, baseline; and its refusals."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
PORTS = ("--port", "19000", "--agent-port", "19700", "--port-base", "29000")
GCS = "127.0.0.1:29000"


def shoal(env: dict[str, str], *words: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    argv = [str(BIN / "shoal"), *words]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Two loopback hosts with a simulated engine; the environment that reaches their Ray."""
    state = tmp_path_factory.mktemp("bench")
    env = {**os.environ, "SHOAL_STATE_DIR": str(state)}
    done = shoal(env, "lab", "up", "-n", "2", "--hosts", "loopback", *PORTS)
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(state / "lab" / "ray.token")}
        yield env | token | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_ADDRESS": GCS}
    finally:
        shoal(env, "lab", "down")


@pytest.mark.ray
def test_two_nodes_are_measured_over_gloo(cluster: dict[str, str], tmp_path: Path) -> None:
    """Every collective has a row for each size, both directions are there, picture and baseline are kept."""
    picture, kept = tmp_path / "fabric.png", tmp_path / "base.json"
    words = ("--max-size", "1M", "--plot", str(picture), "--baseline", str(kept), "--json")
    done = shoal(cluster, "bench", "fabric", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert {row["name"] for row in told["rows"]} == {"all_reduce", "all_gather", "reduce_scatter", "send_recv"}
    assert [row["size"] for row in told["rows"] if row["name"] == "all_reduce"] == [4**n << 10 for n in range(6)]
    assert all(row["busbw"] > 0 for row in told["rows"])
    assert [(pair["source"], pair["target"]) for pair in told["pairs"]] == [(0, 1), (1, 0)]
    assert [(rank["address"], rank["interface"]) for rank in told["ranks"]] == [
        ("127.0.0.1", "lo"),
        ("127.0.0.2", "lo"),
    ]
    assert (told["backend"], told["good"]) == ("gloo", None)
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert json.loads(kept.read_text())["rows"] == told["rows"]


@pytest.mark.ray
def test_a_kept_result_is_compared(cluster: dict[str, str], tmp_path: Path) -> None:
    """Against a baseline that is ten times faster, every size is shown as slower."""
    kept = tmp_path / "base.json"
    few = ("--max-size", "4K", "--only", "all_reduce", "--no-pairs")
    assert shoal(cluster, "bench", "fabric", *few, "--baseline", str(kept)).returncode == 0
    faster = json.loads(kept.read_text())
    for row in faster["rows"]:
        row["busbw"] *= 1000
    kept.write_text(json.dumps(faster))
    done = shoal(cluster, "bench", "fabric", *few, "--compare", str(kept))
    assert done.stdout.count("-100%") == 2, done.stdout


@pytest.mark.ray
def test_a_cluster_that_is_not_there_is_told(cluster: dict[str, str]) -> None:
    """No Ray at the address: one sentence, code 4, no traceback."""
    done = shoal(cluster, "bench", "fabric", "--address", "127.0.0.1:29999")
    assert (done.returncode, "Traceback" in done.stderr) == (4, False), done.stderr
    assert "there is no Ray cluster to measure" in done.stderr
