"""Labs for the tests: namespace hosts on one machine, with the simulated engine."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.subnets import free_subnet

from shoal.lab import cluster
from shoal.lab.plan import Wish


@pytest.fixture(scope="session", autouse=True)
def root() -> None:
    """Namespace hosts are made by root; without it these tests are skipped, and said to be."""
    if os.geteuid() != 0:
        pytest.skip("namespace hosts need root")


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment with a state folder of its own; a lab in it is taken down in any case."""
    found = {**os.environ, "SHOAL_STATE_DIR": str(tmp_path / "state")}
    yield found
    cluster.down(found)


LOOPBACK = Wish(2, "loopback", "sim", port_base=31000, api_port=18020, agent_port=18720)
NAMESPACE = Wish(2, "namespace", "sim", subnet=free_subnet(113))
