"""Which processes the engine tests take for a cluster's."""

import pytest
from tests.engine.cluster import could_be_ours

PYTHON = "/srv/shoal/.venv/bin/python"


@pytest.mark.parametrize(
    "argv",
    [
        [PYTHON, "-m", "shoal", "agent"],
        [PYTHON, "-m", "shoal"],
        [PYTHON, "/srv/shoal/.venv/bin/shoal", "up", "--local"],
        ["ray::IDLE", "", ""],
        ["ray::RayWorkerProc.execute_method"],
        ["/site-packages/ray/core/src/ray/raylet/raylet", "--raylet_socket_name=x"],
        ["/site-packages/ray/core/src/ray/gcs/gcs_server"],
        [PYTHON, "-u", "/site-packages/ray/dashboard/agent.py"],
        ["VLLM::EngineCore"],
        [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", "/tmp/pytest-of-root/pytest-0/model"],
        [PYTHON, "-m", "vllm.entrypoints.openai.api_server"],
        [PYTHON, "-c", "from multiprocessing.resource_tracker import main;main(43)"],
        [PYTHON, "-c", "from multiprocessing.spawn import spawn_main; spawn_main(3)"],
    ],
)
def test_programs_of_a_cluster_count(argv: list[str]) -> None:
    """Every program that a cluster consists of counts."""
    assert could_be_ours(argv)


@pytest.mark.parametrize(
    "argv",
    [
        [],
        [""],
        ["-bash"],
        ["sleep", "60"],
        ["/bin/bash", "-c", "cd /srv && python -m shoal agent"],
        ["sh", "-c", "tail /tmp/ray/session_latest/logs/x"],
        [PYTHON, "-m", "shoaling"],
        [PYTHON, "/srv/shoal/.venv/bin/pytest", "tests/ray/test_ray_facts.py"],
        [PYTHON, "-m", "pytest", "-q", "tests/ray/test_ray_facts.py"],
        [PYTHON, "/x/site-packages/ray/dashboard/agent.py", "--temp-dir=/tmp/foreign-abc"],
    ],
)
def test_other_programs_do_not_count(argv: list[str]) -> None:
    """Shells, test runs, the foreign Ray and programs of other people do not count."""
    assert not could_be_ours(argv)
