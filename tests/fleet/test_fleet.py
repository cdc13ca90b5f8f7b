"""A cluster on four hosts, from `init` to `down --purge`, by the commands that operators type."""

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from tests.fleet.conftest import ROOT, Fleet

from shoal.ops.fleet import reach
from shoal.plan.fleet import FleetPlan

pytestmark = pytest.mark.fleet
WHOLE = {"gpu-1 agent", "gpu-1 engine", "gpu-2 agent", "gpu-3 agent", "gpu-4 agent"}


@pytest.fixture(autouse=True)
def nothing_is_left(fleet: Fleet) -> Iterator[None]:
    """A test that fails in the middle leaves no cluster to the next."""
    yield
    if (fleet.folder / "shoal.yaml").exists():
        fleet.shoal("down", "-f", "shoal.yaml", "--purge", code=None)


def restarted(before: dict[str, int], after: dict[str, int]) -> set[str]:
    """The programs that have another process now; all of them run."""
    assert set(after) == WHOLE
    assert all(after.values())
    return {name for name in after if before.get(name) != after[name]}


def planned(fleet: Fleet) -> dict[str, Any]:
    return dict(json.loads(fleet.shoal("plan", "--json").stdout))


def hides_its_secrets(fleet: Fleet) -> bool:
    """Whether token and key are in files of mode 0600, and in no argument and no rendered file."""
    secrets = [(fleet.folder / "me/clusters/lab" / name).read_text().strip() for name in ("api.key", "ray.token")]
    modes = f"stat -c '%a %n' {ROOT}/state/*.key {ROOT}/state/*.token"
    look = f"{modes}; cat {ROOT}/current/* {ROOT}/current/.env; ps -eo args="
    shown = fleet.hosts["gpu-1"].run(["sh", "-c", look], timeout=30, ok=range(3)).out
    assert shown.splitlines()[:2] == [f"600 {ROOT}/state/api.key", f"600 {ROOT}/state/ray.token"]
    return not [secret for secret in secrets if secret in shown]


def comes_up(fleet: Fleet) -> dict[str, int]:
    """The first `up`, and a second one that finds nothing to do; what runs."""
    fleet.write()
    plan = FleetPlan.model_validate(planned(fleet))
    assert "shoal is ready: 4 node(s), one endpoint" in fleet.shoal("up", "--timeout", "240").stdout
    units = fleet.units()
    restarted({}, units)
    status = reach.status(fleet.hosts["gpu-1"], plan)
    assert (status.state.value, [node.state.value for node in status.nodes]) == ("ready", ["up"] * 4)
    assert hides_its_secrets(fleet)
    assert "nothing to change" in fleet.shoal("up").stdout
    assert restarted(units, fleet.units()) == set()
    return units


def test_the_life_of_a_cluster(fleet: Fleet) -> None:
    """It comes up, is changed, healed, rolled back and taken down; only what a change touches starts again."""
    bare = fleet.traces()
    first = comes_up(fleet)

    fleet.write(head=", SHOAL_WEDGED_AFTER: 50")
    diff = fleet.shoal("plan", "--diff").stdout
    assert "  + SHOAL_WEDGED_AFTER=50   # shoal.yaml: env of gpu-1" in diff.splitlines()
    assert diff.splitlines()[-1] == "to push: 4 host(s); to switch: 4; to start: engine of gpu-1"
    fleet.shoal("up", "--timeout", "240")
    second = fleet.units()
    assert restarted(first, second) == {"gpu-1 engine"}

    fleet.write(head=", SHOAL_WEDGED_AFTER: 50", worker=", NCCL_DEBUG: WARN")
    fleet.hosts["gpu-2"].run(["kill", "-KILL", str(second["gpu-2 agent"])], timeout=20)
    said = fleet.shoal("plan", "--diff").stdout
    assert "gpu-2: agent starts: it has ended" in said
    assert "gpu-3: agent starts again: what it is started with has changed" in said
    fleet.shoal("up", "--timeout", "240")
    third = fleet.units()
    assert restarted(second, third) == {"gpu-1 engine", "gpu-2 agent", "gpu-3 agent"}

    now = planned(fleet)["digest"]
    fleet.shoal("rollback", "--timeout", "240")
    assert restarted(third, fleet.units()) == {"gpu-1 engine", "gpu-3 agent"}
    links = {host.run(["readlink", f"{ROOT}/current"], timeout=20).out for host in fleet.hosts.values()}
    assert len(links) == 1
    assert now not in links.pop()

    fleet.shoal("down", "-f", "shoal.yaml", "--purge")
    assert fleet.traces() == bare
    assert not (fleet.folder / "me/clusters/lab").exists()


def test_a_host_that_is_down_is_named_and_nothing_is_changed(fleet: Fleet) -> None:
    """One pulled cable: the host, the reason and the fix; the other hosts are as they were."""
    fleet.write()
    before = fleet.traces()
    fleet.machines.cable("gpu-2", up=False)
    try:
        done = fleet.shoal("up", code=3)
    finally:
        fleet.machines.cable("gpu-2", up=True)
    assert done.stderr.startswith("error: gpu-2 ")
    assert [line[:4] for line in done.stderr.splitlines()] == ["erro", "why:", "fix:"]
    assert fleet.traces() == before


def test_two_operators_and_an_interruption(fleet: Fleet) -> None:
    """A second operator is told who is at it. Ctrl-C says how far it came and what goes on; the lock is free again."""
    bare = fleet.traces()
    fleet.write()
    up = fleet.begun("up", "--timeout", "240")
    assert up.stdout is not None
    for line in up.stdout:
        if "waiting for the first token" in line:
            break
    other = fleet.shoal("up", operator="other", code=4).stderr
    assert "changes this cluster just now: shoal up" in other
    up.send_signal(signal.SIGINT)
    _, said = up.communicate(timeout=60)
    assert (up.returncode, said.splitlines()) == (
        130,
        [
            "interrupted; it came as far as: waiting for the first token",
            "next: shoal up -f shoal.yaml   # goes on from there",
            "     shoal rollback -f shoal.yaml   # back to the last that served",
        ],
    )
    fleet.shoal("down", "-f", "shoal.yaml", "--purge", operator="other")
    assert fleet.traces() == bare
