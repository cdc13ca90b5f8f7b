"""VERIFY: whether the GCS has this node as it should be."""

import pytest

from shoal.agent.verify import judge
from shoal.facts.ray import NodeRow, RayTable


def row(node_id: str, address: str, alive: bool = True, gpus: float | None = 1, start: int = 0) -> NodeRow:
    resources = {"CPU": 1.0} if gpus is None else {"CPU": 1.0, "GPU": gpus}
    return NodeRow(node_id, address, alive, is_head=False, resources=resources, start_time_ms=start)


def table(*rows: NodeRow) -> RayTable:
    return RayTable("2.60.0", "3.11.7", "c0", rows)


def test_a_live_node_with_its_gpus_is_verified_by_its_id() -> None:
    """A node that is alive at its address with its GPUs has its Ray id and no reason."""
    assert judge(table(row("a", "10.0.0.1"), row("b", "10.0.0.2")), "10.0.0.2", 1) == ("b", "")


def test_of_several_entries_the_newest_that_lives_counts() -> None:
    """Entries of earlier joins and dead ones are not this node."""
    rows = table(
        row("old", "10.0.0.2", start=1), row("new", "10.0.0.2", start=2), row("x", "10.0.0.2", alive=False, start=3)
    )
    assert judge(rows, "10.0.0.2", 1) == ("new", "")


def test_a_node_without_gpus_may_be_as_it_should_be() -> None:
    """A node that is to offer no GPU and offers none is verified."""
    assert judge(table(row("a", "10.0.0.1", gpus=None)), "10.0.0.1", 0) == ("a", "")


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ((), "the GCS has no live node at 10.0.0.9; it has: none"),
        ((row("a", "10.0.0.9", alive=False),), "the GCS has no live node at 10.0.0.9; it has: none"),
        (
            (row("a", "10.0.0.2"), row("b", "10.0.0.1"), row("c", "10.0.0.1"), row("d", "10.0.0.3", alive=False)),
            "the GCS has no live node at 10.0.0.9; it has: 10.0.0.1, 10.0.0.2",
        ),
        ((row("a", "10.0.0.9", gpus=None),), "the GCS has 10.0.0.9 with 0 GPU(s), expected 1"),
        ((row("a", "10.0.0.9", gpus=8.0),), "the GCS has 10.0.0.9 with 8 GPU(s), expected 1"),
        ((row("a", "10.0.0.9", gpus=0.5),), "the GCS has 10.0.0.9 with 0.5 GPU(s), expected 1"),
    ],
)
def test_what_is_not_as_it_should_be_is_told(rows: tuple[NodeRow, ...], reason: str) -> None:
    """A node that is missing, dead or offers other GPUs has no id, and the reason says what is there instead."""
    assert judge(table(*rows), "10.0.0.9", 1) == (None, reason)


def test_a_raylet_that_is_gone_does_not_count() -> None:
    """The GCS takes a killed raylet for alive for a while; only the one that offers this start's mark is this node."""
    new = NodeRow("new", "10.0.0.2", alive=True, is_head=False, resources={"GPU": 1.0, "shoal-1": 1.0}, start_time_ms=1)
    rows = table(row("old", "10.0.0.2", start=9), new)
    assert judge(rows, "10.0.0.2", 1, "shoal-1") == ("new", "")
    assert judge(table(row("old", "10.0.0.2")), "10.0.0.2", 1, "shoal-1")[0] is None


def test_two_machines_at_one_address_are_told_by_name() -> None:
    """Another machine that is alive at this address is named; a predecessor on the same machine is none."""
    mine, before, other = (
        NodeRow(node_id, "10.0.0.2", alive=True, is_head=False, resources={"GPU": 1.0, mark: 1.0}, hostname=hostname)
        for node_id, mark, hostname in (("a", "shoal-1", "box2"), ("b", "shoal-0", "box2"), ("c", "x", "box3"))
    )
    assert judge(table(mine, before), "10.0.0.2", 1, "shoal-1") == ("a", "")
    assert judge(table(mine, before, other), "10.0.0.2", 1, "shoal-1") == (
        None,
        "two machines are in the cluster at 10.0.0.2: box2 and box3; give each an address of its own (VLLM_HOST_IP)",
    )
