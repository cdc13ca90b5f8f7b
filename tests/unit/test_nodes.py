"""What the supervisor knows of its nodes: who is silent, who is lost, whose GPUs must be looked at."""

from typing import Any

from shoal.engine.nodes import Nodes
from shoal.state.status import NodeState, NodeStatus, Versions

A, B = "10.0.0.1", "10.0.0.2"
SILENCE, REFUSAL = "no answer within 1.5 s", "connection refused"
VERSIONS = Versions(shoal="0.1.0", python="3.12.3")


def node(address: str, ray: str | None = "r", **more: Any) -> NodeStatus:
    name, role = ("head", "head") if address == A else ("w", "worker")
    state = NodeState.UP if ray else NodeState.JOINING
    fields = {"name": name, "role": role, "address": address, "state": state, "gpus": 1, "ray_node_id": ray}
    return NodeStatus.model_validate(fields | {"versions": VERSIONS} | more)


def launched() -> Nodes:
    """An engine on two nodes, launched at 0 s."""
    return Nodes(30.0).asked({A: node(A, "a"), B: node(B, "b")}, 0.0).launch()


def states(nodes: Nodes, now: float) -> list[object]:
    return [one.state if isinstance(one, NodeStatus) else one for one in nodes.view(now).values()]


def test_silence_is_suspect_and_then_lost() -> None:
    """A node that was heard and is silent is suspect within 2 s, and lost after SHOAL_LOST_AFTER."""
    nodes = launched().asked({A: node(A, "a"), B: SILENCE}, 10.0)
    assert [states(nodes, now)[1] for now in (1.0, 1.9, 30.0, 30.1)] == [
        NodeState.UP,
        NodeState.SUSPECT,
        NodeState.SUSPECT,
        NodeState.LOST,
    ]
    assert [nodes.lost(now) for now in (1.0, 30.0)] == ["", ""]
    assert nodes.lost(31.0) == "w (10.0.0.2) is lost: silent for 31 s"


def test_a_token_outweighs_the_silence_of_an_agent() -> None:
    """A token needs every rank: while one comes, a node of which only the agent is silent is not lost."""
    nodes = launched().asked({A: node(A, "a"), B: SILENCE}, 100.0)
    assert [nodes.lost(100.0, token) for token in (95.0, 70.0, None)] == [
        "",
        *["w (10.0.0.2) is lost: silent for 100 s"] * 2,
    ]
    assert states(nodes, 100.0)[1] is NodeState.LOST
    gone = launched().asked({A: node(A, "a"), B: REFUSAL}, 100.0)
    assert gone.lost(100.0, 99.0) == "w (10.0.0.2) is lost: its agent: connection refused"


def test_without_ray_the_heads_agent_may_come_and_go() -> None:
    """The head's ranks belong to the supervisor: its agent's end is no loss. Another node's is one."""
    stays = {one: node(one, None, state=NodeState.UP, stay_id=one) for one in (A, B)}
    nodes = Nodes(30.0).asked(stays, 0.0).launch(apart=A)
    assert (nodes.raylets, nodes.unsure) == (frozenset({A, B}), {})
    assert nodes.asked(stays | {A: REFUSAL}, 1.0).lost(1.0) == ""
    assert nodes.asked(stays | {B: REFUSAL}, 1.0).lost(1.0) == "w (10.0.0.2) is lost: its agent: connection refused"


def test_a_raylet_that_ended_is_lost_at_once() -> None:
    """An agent that has another Ray, or none, tells of a loss that no token can outweigh."""
    none = launched().asked({A: node(A, "a"), B: node(B, None, detail="Ray ended: x")}, 1.0)
    other = launched().asked({A: node(A, "a"), B: node(B, "b2")}, 1.0)
    assert none.lost(1.0, 1.0) == "the Ray of w (10.0.0.2) has ended: Ray ended: x"
    assert other.lost(1.0, 1.0) == "the Ray of w (10.0.0.2) has ended"
    assert (other.gone().lost(1.0), Nodes(30.0).asked({A: REFUSAL}, 1.0).lost(1.0)) == ("", "")


def test_whose_gpus_must_be_looked_at() -> None:
    """A raylet that came up before our eyes is free for Ray; all are looked at by their agents before a launch."""
    found = Nodes(30.0).asked({A: node(A, "a"), B: node(B, None)}, 0.0)
    both = found.asked({A: node(A, "a"), B: node(B, "b")}, 1.0)
    assert (both.unsure, both.raylets, both.unchecked) == ({"a": "head"}, frozenset({"a", "b"}), True)
    checked = both.checked(both.raylets)
    assert (checked.unsure, checked.unchecked) == ({}, False)
    used = checked.launch()
    assert (used.unsure, used.unchecked) == ({"a": "head", "b": "w"}, True)
    back = used.checked(frozenset({"a"})).asked({A: node(A, "a"), B: node(B, "b2")}, 2.0)
    assert (back.unsure, back.unchecked) == ({}, True)


def test_who_can_be_asked_and_who_is_hushed() -> None:
    """Those whose agents answer can be asked; silence, and a node that hears nothing, make it no time for verdicts."""
    nodes = launched().asked({A: node(A, "a"), B: SILENCE}, 1.0)
    deaf = launched().asked({A: node(A, "a"), B: node(B, "b", state=NodeState.SUSPECT)}, 1.0)
    assert (nodes.reachable, nodes.hushed, deaf.hushed, launched().hushed) == ({A: "head"}, True, True, False)
    shown = deaf.proven(1.0, 0.5)[B]
    assert isinstance(shown, NodeStatus)
    assert shown.state is NodeState.UP
