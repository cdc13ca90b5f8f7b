"""Real vLLM on namespace hosts: what the simulated engine stands for is true of the real one."""

import os
from collections.abc import Iterator

import pytest
from tests.subnets import free_subnet

from shoal.lab import cluster, faults, processes
from shoal.lab.cluster import Lab
from shoal.lab.plan import Wish
from shoal.ops.ask import ask
from shoal.state.status import ClusterState

pytestmark = [pytest.mark.lab, pytest.mark.engine]
QUESTION, ANSWER = "What is the capital of France?", "The capital of France is Paris."


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of the one lab of this module."""
    env = {**os.environ, "SHOAL_STATE_DIR": str(tmp_path_factory.mktemp("lab") / "state")}
    settings = {"SHOAL_RESTART_WINDOW": "5", "SHOAL_WEDGED_AFTER": "15"}
    try:
        wish = Wish(2, "namespace", "vllm", subnet=free_subnet(118), settings=settings)
        cluster.wait_ready(cluster.up(wish, env, lambda _: None), 500)
        yield env
    finally:
        cluster.down(env)


def strike(lab: Lab, name: str, word: str) -> Lab:
    fault = faults.FAULTS[name]
    return faults.strike(lab, fault, faults.read_target(lab, fault, word))[0]


def api(lab: Lab) -> set[int]:
    return {process.pid for process in processes.find(lab.host("head"), lab.record.run.boot_id, "api")}


@pytest.mark.parametrize(
    ("fault", "target", "why"),
    [
        ("kill", "agent@n2", "n2"),
        ("stop", "rank@n2", "wedged|no token"),
        ("head-reboot", "", ""),
    ],
)
def test_the_real_engine_comes_back(shared: dict[str, str], fault: str, target: str, why: str) -> None:
    """A worker killed, a rank that only hangs, a head that reboots: vLLM is loaded anew, by itself, and answers."""
    lab = cluster.current(shared)
    cluster.wait_ready(lab, 500)
    before = api(lab)
    lab = strike(lab, fault, target)
    cluster.wait_while(lab, ClusterState.READY, 120)
    status = cluster.wait_ready(lab, 500)
    assert api(lab) & before == set()
    assert ask(lab.record.run, QUESTION, max_tokens=16).text.startswith(ANSWER)
    assert status.engine is not None
    assert any(word in status.engine.last_fault for word in why.split("|"))
    for record in cluster.current(shared).record.faults:
        lab, _ = faults.undo(lab, record)
