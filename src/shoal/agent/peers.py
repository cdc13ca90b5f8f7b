"""Heartbeats, as the head's agent hears them: which node is silent, and for how long. Pure.

Every worker's agent tells its status to the head's agent once a second. So there is one that knows how long a node has
been silent, also for those who have only just begun to look.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from shoal.state.status import NodeState, NodeStatus

BEAT_EVERY = 1.0
# One beat may be late by this; with it a silent node is suspect within 2 s of its last word.
SUSPECT_AFTER = 1.8
FORGET_AFTER = 3600.0
MOST = 4096
# A node that said so itself is not missed.
GONE = frozenset({NodeState.STOPPED, NodeState.DRAINING})


@dataclass(frozen=True)
class Heard:
    """What a node said last, and when (monotonic seconds)."""

    status: NodeStatus
    at: float


Peers = Mapping[str, Heard]


def hear(peers: Peers, status: NodeStatus, now: float) -> dict[str, Heard]:
    """The peers after one beat. Those that were silent for an hour are forgotten, and there is a limit to all."""
    kept = {address: heard for address, heard in peers.items() if now - heard.at < FORGET_AFTER}
    if status.address not in kept and len(kept) >= MOST:
        return kept
    return kept | {status.address: Heard(status, now)}


def judge(heard: Heard, now: float, lost_after: float) -> NodeStatus:
    """The node now: as it said, or suspect, or lost."""
    return silent(heard.status, now - heard.at, lost_after)


def silent(status: NodeStatus, seconds: float, lost_after: float) -> NodeStatus:
    """A node that has said nothing for that long; itself where that is not long."""
    if seconds <= SUSPECT_AFTER or status.state in GONE or status.state is NodeState.FAILED:
        return status
    state = NodeState.LOST if seconds > lost_after else NodeState.SUSPECT
    return status.model_copy(update={"state": state, "detail": f"silent for {seconds:.0f} s"})


def view(peers: Peers, now: float, lost_after: float) -> tuple[NodeStatus, ...]:
    """All that were heard of, by address."""
    return tuple(judge(peers[address], now, lost_after) for address in sorted(peers))
