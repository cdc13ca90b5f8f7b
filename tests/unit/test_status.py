"""The state of the whole from the states of its parts, and the document that carries it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.state.status import (
    ClusterState,
    ClusterStatus,
    EngineState,
    EngineStatus,
    NodeState,
    NodeStatus,
    judge,
)


def node(state: NodeState, index: int = 1) -> NodeStatus:
    return NodeStatus(name=f"n{index}", role="head" if index == 1 else "worker", address=f"10.0.0.{index}", state=state)


def engine(state: EngineState) -> EngineStatus:
    return EngineStatus(state=state, model="m")


UP, JOINING, LOST, FAILED = NodeState.UP, NodeState.JOINING, NodeState.LOST, NodeState.FAILED
# One column per set of nodes: all up, one joining, one lost, one failed, one lost and one failed.
NODES = ((UP, UP), (UP, JOINING), (UP, LOST), (UP, FAILED), (LOST, FAILED))
TABLE = {
    "waiting": ("starting", "starting", "degraded", "failed", "failed"),
    "starting": ("starting", "starting", "degraded", "failed", "failed"),
    "ready": ("ready", "degraded", "degraded", "failed", "failed"),
    "unready": ("degraded", "degraded", "degraded", "failed", "failed"),
    "draining": ("degraded", "degraded", "degraded", "failed", "failed"),
    "restarting": ("degraded", "degraded", "degraded", "failed", "failed"),
    "failed": ("failed", "failed", "failed", "failed", "failed"),
    "stopping": ("stopping", "stopping", "stopping", "stopping", "stopping"),
    "stopped": ("stopping", "stopping", "stopping", "stopping", "stopping"),
}


@pytest.mark.parametrize("state", EngineState)
def test_the_whole_from_its_parts(state: EngineState) -> None:
    """Engine state by node states gives the table's cluster state."""
    judged = tuple(judge(tuple(node(part, at) for at, part in enumerate(nodes, 1)), engine(state)) for nodes in NODES)
    assert judged == TABLE[state.value]


def test_without_an_engine() -> None:
    """Nodes without an engine are a degraded cluster, and nothing at all is a cluster that is down."""
    assert (judge((), None), judge((node(UP),), None)) == (ClusterState.DOWN, ClusterState.DEGRADED)


PARTS = st.lists(st.sampled_from(NodeState), max_size=5)
ENGINES = st.none() | st.sampled_from(EngineState)


@given(PARTS, ENGINES)
def test_never_ready_unless_every_part_says_so(parts: list[NodeState], state: EngineState | None) -> None:
    """`ready` is said of no cluster with a node that is not up or an engine that is not ready."""
    judged = judge(tuple(node(part, at) for at, part in enumerate(parts, 1)), engine(state) if state else None)
    if judged is ClusterState.READY:
        assert (state, set(parts) - {UP}) == (EngineState.READY, set())


@given(PARTS, ENGINES)
def test_the_order_of_nodes_does_not_matter(parts: list[NodeState], state: EngineState | None) -> None:
    """The same nodes in another order are the same cluster."""
    nodes = tuple(node(part, at) for at, part in enumerate(parts, 1))
    whole = engine(state) if state else None
    assert judge(nodes, whole) == judge(nodes[::-1], whole)


def test_a_document_survives_the_wire() -> None:
    """The status as JSON is read back as the same status, with its version."""
    status = ClusterStatus(
        cluster="local",
        state=ClusterState.READY,
        endpoint="http://127.0.0.1:8000/v1",
        nodes=(node(UP), node(LOST, 2)),
        engine=engine(EngineState.READY),
    )
    assert ClusterStatus.model_validate_json(status.model_dump_json()) == status
    assert status.model_dump(mode="json")["schema_version"] == 1


def test_an_unknown_field_is_passed_over() -> None:
    """A document with a field that a newer writer added is read without it."""
    assert NodeStatus.model_validate({**node(UP).model_dump(), "mood": "good"}) == node(UP)
