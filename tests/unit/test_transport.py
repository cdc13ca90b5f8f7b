"""The supervisor's watch over what the engine's traffic goes over."""

import asyncio
import io
from collections.abc import Sequence

import pytest
from tests.unit.test_proof import node, port, rank

from shoal.bench.counters import NodeProof, Process
from shoal.engine.transport import ENOUGH_TOKENS, WINDOW, Look, TransportWatch, judge
from shoal.log import Event, EventLog
from shoal.state.status import (
    ClusterState,
    ClusterStatus,
    EngineState,
    EngineStatus,
    NodeState,
    NodeStatus,
    Transport,
    TransportStatus,
)
from shoal.state.status import judge as whole

RDMA, TCP, LOCAL, UNKNOWN = Transport.RDMA, Transport.TCP, Transport.LOCAL, Transport.UNKNOWN
IB, SOCKET = (rank(0),), (rank(0, "Socket"),)
OVER_TCP = "serving over TCP, although RDMA is planned: "


def both(moved: int | None, processes: tuple[Process, ...] = ()) -> tuple[NodeProof, ...]:
    """Two nodes with one HCA each, after so many bytes."""
    return tuple(node(number, port(sent=moved, received=moved), processes=processes) for number in (1, 2))


def look(nodes: tuple[NodeProof, ...], tokens: float = 0.0) -> Look:
    return Look(0.0, tokens, nodes)


LOOPBACK = tuple(one.model_copy(update={"address": f"127.0.0.{at}"}) for at, one in enumerate(both(0), 1))
DEAD = (rank(0, "Socket", alive=False),)
CASES: dict[str, tuple[Look | None, Look, TransportStatus]] = {
    "one node": (
        None,
        look(both(0)[:1]),
        TransportStatus(kind=LOCAL, detail="one node: its traffic crosses no network"),
    ),
    "one machine": (None, look(LOOPBACK), TransportStatus(kind=LOCAL, detail="all nodes are processes of one machine")),
    "replicas": (
        None,
        look(both(0, (rank(0, "", nodes=1),))),
        TransportStatus(kind=LOCAL, detail="no rank speaks with one of another node, says NCCL"),
    ),
    "log says RDMA": (
        None,
        look(both(0, IB)),
        TransportStatus(kind=RDMA, detail="NCCL says NET/IB on every node; no bytes counted yet"),
    ),
    "log says sockets": (
        None,
        look(both(0, SOCKET)),
        TransportStatus(kind=TCP, detail=OVER_TCP + "n1, n2: NCCL in rank 0 uses NET/Socket", degraded=True),
    ),
    "an earlier engine's log": (
        None,
        look(both(0, DEAD)),
        TransportStatus(kind=UNKNOWN, detail="NCCL has said nothing on n1, n2"),
    ),
    "bytes moved": (
        look(both(0)),
        look(both(1 << 20), 100),
        TransportStatus(kind=RDMA, detail="over RDMA: RDMA bytes moved on every node; 100 tokens came meanwhile"),
    ),
    "no bytes moved": (
        look(both(0, IB)),
        look(both(0, IB), 100),
        TransportStatus(
            kind=TCP,
            detail=OVER_TCP + "n1, n2: no RDMA traffic on mlx5_0: 0 bytes of at least 51,200",
            degraded=True,
        ),
    ),
    "no counters, log says RDMA": (
        look(both(None, IB)),
        look(both(None, IB), 100),
        TransportStatus(kind=RDMA, detail="NCCL says NET/IB on every node; its bytes cannot be counted"),
    ),
    "no counters, no log": (
        look(both(None)),
        look(both(None), 100),
        TransportStatus(
            kind=UNKNOWN,
            detail="not proven: n1, n2: the byte counters of mlx5_0 tell nothing; look into "
            "/sys/class/infiniband/*/ports/*/counters",
        ),
    ),
    "no devices": (
        None,
        look((node(1, processes=SOCKET), node(2, processes=SOCKET))),
        TransportStatus(kind=TCP, detail="no RDMA device is active on n1, n2: traffic goes over TCP"),
    ),
    "turned off": (
        None,
        look((node(1, disabled="NCCL_IB_DISABLE=1", processes=SOCKET), node(2, processes=SOCKET))),
        TransportStatus(
            kind=TCP, detail="RDMA is turned off: NCCL_IB_DISABLE=1 on n1; traffic goes over TCP, as somebody wanted"
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_it_goes_over(case: str) -> None:
    """By what NCCL says and what the counters show: kind, sentence, and whether that is a fault."""
    before, now, expected = CASES[case]
    assert judge(before, now) == expected


class Cluster:
    """Agents and an engine that say what they are told to."""

    def __init__(self) -> None:
        self.tokens: float | None = None
        self.nodes: Sequence[NodeProof | str] = both(0, IB)
        self.asked = 0
        self.told: list[Event] = []
        log = EventLog(io.StringIO(), clock=lambda: 0.0)
        log.listeners.append(self.told.append)
        self.watch = TransportWatch(self._ask, self._count, log)

    async def _ask(self) -> Sequence[NodeProof | str]:
        self.asked += 1
        return self.nodes

    async def _count(self) -> float | None:
        return self.tokens

    def look(self, now: float, tokens: float | None, moved: int = 0) -> Transport | None:
        """One look; the kind that is shown after it."""
        self.tokens, self.nodes = tokens, both(moved, IB)
        asyncio.run(self.watch.look(now))
        return self.watch.status.kind if self.watch.status else None


def test_nothing_is_said_before_the_first_token() -> None:
    """No server, or no token yet: no status, and no agent is asked."""
    cluster = Cluster()
    assert ([cluster.look(0, None), cluster.look(1, 0.0)], cluster.asked) == ([None, None], 0)


def test_a_window_with_tokens_is_judged_by_its_bytes() -> None:
    """The log first; then the counters once a window is over that had tokens in it, and not before."""
    cluster = Cluster()
    assert cluster.look(0, 1.0) is RDMA
    assert cluster.look(WINDOW - 1, 1000.0) is RDMA
    assert cluster.look(WINDOW, ENOUGH_TOKENS) is RDMA
    assert cluster.asked == 1
    assert cluster.look(WINDOW + 1, 1000.0, moved=0) is TCP
    assert cluster.look(2 * WINDOW + 1, 2000.0, moved=1 << 20) is RDMA
    assert [(event.name, event.level) for event in cluster.told] == [
        ("transport", "info"),
        ("transport", "warn"),
        ("transport", "info"),
    ]


def test_a_new_start_is_judged_anew() -> None:
    """A counter that went back, or a server that is gone, ends what was said of the engine before."""
    cluster = Cluster()
    assert cluster.look(0, 1000.0) is RDMA
    assert cluster.look(1, None) is None
    assert cluster.look(2, 5.0) is RDMA
    assert cluster.look(3, 1.0) is RDMA
    assert cluster.asked == 3


def test_an_agent_that_does_not_tell_is_named() -> None:
    """What is not known is said with the reason, and is no fault."""
    cluster = Cluster()
    cluster.tokens, cluster.nodes = 1.0, (both(0)[0], "10.0.0.2: its agent answers 404")
    asyncio.run(cluster.watch.look(0))
    assert cluster.watch.status == TransportStatus(kind=UNKNOWN, detail="10.0.0.2: its agent answers 404")


def status(transport: TransportStatus | None, node_state: NodeState = NodeState.UP) -> tuple[ClusterState, bool]:
    """State of a cluster with a ready engine, and whether only its transport is at fault."""
    nodes = (NodeStatus(name="n", role="head", address="10.0.0.1", state=node_state),)
    engine = EngineStatus(state=EngineState.READY, model="m", transport=transport)
    state = whole(nodes, engine)
    return state, ClusterStatus(cluster="c", state=state, nodes=nodes, engine=engine).serves_over_tcp


def test_serving_over_tcp_is_degraded() -> None:
    """A ready engine over TCP is a degraded cluster where RDMA was planned, and a ready one where it was not."""
    fault, plain = TransportStatus(kind=TCP, degraded=True), TransportStatus(kind=TCP)
    assert [status(fault), status(plain), status(None)] == [
        (ClusterState.DEGRADED, True),
        (ClusterState.READY, False),
        (ClusterState.READY, False),
    ]
    assert status(fault, NodeState.LOST) == (ClusterState.DEGRADED, False)
