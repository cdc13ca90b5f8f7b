"""A served model without Ray: vLLM's own processes over two nodes, by the command that users type."""

from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from tests.engine.cluster import NOTHING, Chair, traces, wait_for

pytestmark = pytest.mark.engine

# Another block than those of the other modules.
PORTS = ("--port", "18443", "--agent-port", "18473", "--port-base", "29500")


@pytest.fixture(scope="module")
def alone(foreign_ray: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chair]:
    """One cluster without Ray for all tests of this module; it goes down without a trace."""
    before = traces(foreign_ray)
    seat = Chair(tmp_path_factory.mktemp("alone") / "state")
    done = seat.shoal("up", "--local", "--detach", "--executor", "mp", *PORTS, timeout=600)
    try:
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        yield seat
    finally:
        down = seat.shoal("down")
    left = traces(foreign_ray).beyond(before)
    # Minutes have passed, in which other programs have made files of theirs in /tmp.
    left["tmp"] = [name for name in left["tmp"] if name.startswith("shoal-")]
    assert (down.returncode, left) == (0, NOTHING)


def family(chair: Chair, name: str) -> list[str]:
    """The command lines below one of the cluster's recorded processes."""
    return [" ".join(one.cmdline()) for one in psutil.Process(chair.pid_of(name)).children(recursive=True)]


def test_two_nodes_answer_without_any_ray(alone: Chair) -> None:
    """Tokens come, each node has a rank of its own, and no process of the cluster's is Ray's."""
    status = alone.wait_state("ready", 120)
    assert [(node["name"], node["state"], node["executor"], node["ray_node_id"]) for node in status["nodes"]] == [
        ("head", "up", "mp", None),
        ("worker-1", "up", "mp", None),
    ]
    assert status["engine"]["executor"] == "mp"
    assert "Paris" in alone.shoal("ask", "What is the capital of France?").stdout
    lines = {name: family(alone, name) for name in ("head", "worker-1", "engine")}
    ranks = {name: [line[:16] for line in found if "VLLM::Worker" in line] for name, found in lines.items()}
    assert ranks == {"head": [], "worker-1": ["VLLM::Worker_PP1"], "engine": ["VLLM::Worker_PP0"]}
    assert [line for found in lines.values() for line in found if "raylet" in line or "gcs_server" in line] == []


def test_a_killed_rank_of_another_node_is_noticed_and_tokens_come_again(alone: Chair) -> None:
    """vLLM's first node would serve on until the next request: the worker's agent tells, and all is started again."""
    worker = psutil.Process(alone.pid_of("worker-1"))
    rank = next(one for one in worker.children(recursive=True) if "VLLM::Worker" in " ".join(one.cmdline()))
    before = alone.status()["engine"]["restarts"]
    rank.kill()

    def again() -> dict[str, Any] | None:
        now = alone.status()
        return now if now["state"] == "ready" and now["engine"]["restarts"] > before else None

    status = wait_for(again, 240, "tokens after the rank's end")
    assert status["engine"]["last_fault"].startswith("worker-1 (127.0.0.2): vLLM's ranks here have ended")
    assert "Paris" in alone.shoal("ask", "What is the capital of France?").stdout
