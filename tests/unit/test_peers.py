"""Heartbeats: who is silent, and for how long."""

from shoal.agent.heart import gone
from shoal.agent.peers import FORGET_AFTER, MOST, Heard, hear, judge, view
from shoal.state.status import NodeState, NodeStatus

NODE = NodeStatus(name="w", role="worker", address="10.0.0.2", state=NodeState.UP, stage="UP", ray_cluster_id="c1")
HEAD = NODE.model_copy(update={"name": "h", "role": "head", "address": "10.0.0.1"})


def states(state: NodeState) -> list[NodeState]:
    """What a node of that state is after 1, 1.9, 29, and 31 s of silence."""
    heard = Heard(NODE.model_copy(update={"state": state}), 100.0)
    return [judge(heard, 100.0 + silence, lost_after=30.0).state for silence in (1.0, 1.9, 29.0, 31.0)]


def test_silence_is_suspect_within_two_seconds_and_lost_after_its_time() -> None:
    """A node that was up is suspect before 2 s of silence are over, and lost after SHOAL_LOST_AFTER."""
    assert states(NodeState.UP) == [NodeState.UP, NodeState.SUSPECT, NodeState.SUSPECT, NodeState.LOST]
    assert judge(Heard(NODE, 0.0), 7.0, 30.0).detail == "silent for 7 s"


def test_who_said_goodbye_is_not_missed() -> None:
    """A node that left, or that said why it failed, stays what it said."""
    for state in (NodeState.STOPPED, NodeState.DRAINING, NodeState.FAILED):
        assert states(state) == [state] * 4


def test_the_last_word_of_each_address_counts() -> None:
    """A node that beats again is what it says; others are as silent as they are."""
    peers = hear(hear(hear({}, NODE, 0.0), HEAD, 50.0), NODE, 60.0)
    assert [(node.name, node.state) for node in view(peers, 61.0, 30.0)] == [
        ("h", NodeState.SUSPECT),
        ("w", NodeState.UP),
    ]


def test_the_list_has_an_end() -> None:
    """Who was silent for an hour is forgotten, and no flood of names makes the list longer than its limit."""
    assert set(hear(hear({}, NODE, 0.0), HEAD, FORGET_AFTER)) == {HEAD.address}
    peers: dict[str, Heard] = {}
    for number in range(MOST + 5):
        peers = hear(peers, NODE.model_copy(update={"address": str(number)}), 0.0) if number < MOST - 1 else peers
    peers = hear(hear(peers, NODE, 0.0), HEAD, 0.0)
    assert (len(peers), NODE.address in peers, HEAD.address in peers) == (MOST, True, False)


def test_a_new_cluster_is_known_by_its_id() -> None:
    """Another id, or a head whose Ray has ended, is the end of the cluster that was joined; anything less is not."""
    other = HEAD.model_copy(update={"ray_cluster_id": "c2"})
    starting = HEAD.model_copy(update={"ray_cluster_id": None, "stage": "VERIFY"})
    ended = HEAD.model_copy(update={"ray_cluster_id": None, "stage": "BACKOFF", "detail": "Ray ended: x"})
    assert [gone(mine, head) for mine, head in (("c1", HEAD), ("c1", None), (None, other), ("c1", starting))] == [
        ""
    ] * 4
    assert gone("c1", other) == "the head came back as a new cluster"
    assert gone("c1", ended) == "the head's Ray has ended: Ray ended: x"
