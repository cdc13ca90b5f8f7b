"""What the status page shows: rates, nodes, the sentence on top, and what travels to a browser."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.agent.page import cluster
from shoal.agent.page.watch import Watch, frame, patch, tree
from shoal.state.journal import Entry
from shoal.state.live import ClusterLive, EngineLive, FindingLive, GpuLive, HcaLive, NodeLive, RailLive, ServingLive
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
from shoal.state.verdict import verdict

HEAD = NodeStatus(name="n1", role="head", address="192.168.144.1", state=NodeState.UP, gpus=1)
WORKER = NodeStatus(name="n2", role="worker", address="192.168.144.2", state=NodeState.UP, gpus=1)
READY = EngineStatus(state=EngineState.READY, model="m")


def hca(received: int | None, sent: int | None, **errors: int) -> HcaLive:
    """A port with those totals."""
    return HcaLive(device="mlx5_0", port=1, received_bytes_total=received, sent_bytes_total=sent, errors=errors)


def live(node: NodeStatus, at: float = 0.0, *hcas: HcaLive, findings: tuple[FindingLive, ...] = ()) -> NodeLive:
    """A node's reading."""
    return NodeLive(node=node, at=at, hcas=hcas, findings=findings)


def test_rates_are_made_of_two_readings() -> None:
    """Bytes over the seconds of the node's own clock, in Gb/s; errors by how much they grew."""
    before = {"a": live(HEAD, 100.0, hca(0, 1_000_000_000, seq=3, rnr=1))}
    now = {"a": live(HEAD, 102.0, hca(5_000_000_000, 1_250_000_000, seq=7, rnr=1, new=2))}
    assert cluster.rails(before, now) == (
        RailLive(node="n1", device="mlx5_0", port=1, received_gbps=20.0, sent_gbps=1.0, errors_moved={"seq": 4}),
    )


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (None, live(HEAD, 2.0, hca(1, 1))),
        (live(HEAD, 2.0, hca(1, 1)), live(HEAD, 2.0, hca(9, 9))),
        (live(HEAD, 9.0, hca(1, 1)), live(HEAD, 2.0, hca(9, 9))),
        (live(HEAD, 1.0), live(HEAD, 2.0, hca(9, 9))),
        (live(HEAD, 1.0, hca(9, 9)), live(HEAD, 2.0, hca(3, 3))),
        (live(HEAD, 1.0, hca(None, None)), live(HEAD, 2.0, hca(3, 3))),
    ],
    ids=["first", "same", "clock went back", "new port", "counter began anew", "no count"],
)
def test_where_no_rate_can_be_told_there_is_none(before: NodeLive | None, now: NodeLive) -> None:
    """Never a negative rate, one of a jump, or an invented zero."""
    told = cluster.rails({"a": before} if before else {}, {"a": now})
    assert told == (RailLive(node="n1", device="mlx5_0", port=1),)


def test_nodes_are_those_heard_and_those_expected() -> None:
    """The head first, then by address as numbers; what was never heard is waited for."""
    ten = WORKER.model_copy(update={"name": "n10", "address": "192.168.144.10"})
    told = cluster.nodes(HEAD, [ten, WORKER], {"192.168.144.3": 8, "192.168.144.2": 1}, {})
    assert [(node.name, node.state.value, node.gpus) for node in told] == [
        ("n1", "up", 1),
        ("n2", "up", 1),
        ("192.168.144.3", "waiting", 8),
        ("n10", "up", 1),
    ]


def test_the_document_is_put_together() -> None:
    """The head's judgment of a node stands over what that node said of itself; the newest events are last."""
    lost = WORKER.model_copy(update={"state": NodeState.LOST, "detail": "silent for 40 s"})
    status = ClusterStatus(cluster="n1", state=ClusterState.STARTING, nodes=(HEAD, lost), engine=READY)
    serving = ServingLive(tokens_per_s=12.0)
    told = cluster.whole(
        5.0,
        status,
        ({}, {WORKER.address: live(WORKER, 4.0, hca(1, 1))}),
        EngineLive(engine=READY, at=5.0, serving=serving),
        [Entry(float(number), "n1", "up", f"event {number}", "warn") for number in range(100)],
    )
    assert [(node.node.name, node.node.state.value, len(node.hcas)) for node in told.nodes] == [
        ("n1", "up", 0),
        ("n2", "lost", 1),
    ]
    assert (told.status.state, told.serving) == (ClusterState.DEGRADED, serving)
    assert (told.events[-1].text, told.events[-1].level, len(told.events)) == ("event 99", "warn", 60)


def test_a_silent_supervisor_is_no_ready_engine() -> None:
    """What was heard last is not shown as if it were so now."""
    told = cluster.silent_engine(READY, "connection refused")
    assert (told.state, told.model, told.detail) == (
        EngineState.UNREADY,
        "m",
        "its supervisor does not answer: connection refused",
    )
    assert cluster.silent_engine(None, "x").state is EngineState.UNREADY


def engine(state: EngineState, **more: Any) -> EngineStatus:
    return EngineStatus(state=state, model="m", **more)


def node(state: NodeState, detail: str = "", name: str = "n2", address: str = "192.168.144.2") -> NodeStatus:
    return NodeStatus(name=name, role="worker", address=address, state=state, detail=detail)


THERE = "ssh 192.168.144.2 docker logs --tail 50 ray-worker"
INSIDE = "docker exec vllm python3 /opt/shoal/shoal.pyz"
FAIL = FindingLive(id="gpu.ecc", status="FAIL", title="The GPU's memory is sound", fix="nvidia-smi -r")
TCP = TransportStatus(kind=Transport.TCP, detail="NCCL says NET/Socket", degraded=True)
VERDICTS: list[tuple[EngineStatus | None, list[NodeStatus], list[FindingLive], tuple[str, str, str]]] = [
    (READY, [WORKER], [], ("good", "All is well: m answers on 2 nodes.", "")),
    (None, [WORKER], [], ("busy", "The engine is not there yet.", "")),
    (
        READY,
        [node(NodeState.LOST, "silent for 40 s")],
        [],
        ("bad", "Node n2 is lost: silent for 40 s.", f"shoal logs n2 -f shoal.yaml   # or: {THERE}"),
    ),
    (
        READY,
        [node(NodeState.LOST, name="w", address="127.0.0.2"), node(NodeState.STOPPED, name="v", address="127.0.0.3")],
        [],
        ("bad", "2 nodes are gone: w, v.", "shoal logs w"),
    ),
    (READY, [node(NodeState.FAILED, "no driver")], [FAIL], ("bad", "Node n2 has failed: no driver.", "nvidia-smi -r")),
    (
        engine(EngineState.FAILED, detail="gave up after 5 restarts"),
        [WORKER],
        [],
        (
            "bad",
            "The engine has given up: gave up after 5 restarts.",
            f"shoal restart -f shoal.yaml   # or on the head: {INSIDE} restart",
        ),
    ),
    (
        engine(EngineState.UNREADY, detail="no token comes on request"),
        [WORKER],
        [],
        (
            "bad",
            "No token comes: no token comes on request.",
            "shoal logs engine -f shoal.yaml   # or on the head: docker logs --tail 50 vllm",
        ),
    ),
    (
        engine(EngineState.READY, transport=TCP),
        [WORKER],
        [],
        (
            "warn",
            "It serves, but over TCP and not over RDMA: NCCL says NET/Socket.",
            f"shoal prove -f shoal.yaml   # or on the head: {INSIDE} prove",
        ),
    ),
    (
        READY,
        [node(NodeState.SUSPECT, "silent for 3 s")],
        [],
        ("warn", "Node n2 is suspect: silent for 3 s.", f"shoal logs n2 -f shoal.yaml   # or: {THERE}"),
    ),
    (
        engine(EngineState.STARTING, phase="weights", phases={"gate": 1, "weights": 41.6}),
        [WORKER],
        [],
        ("busy", "The engine is starting: weights, 42 s.", ""),
    ),
    (
        engine(EngineState.WAITING, detail="node 192.168.144.3 is missing"),
        [WORKER],
        [],
        ("busy", "The engine waits: node 192.168.144.3 is missing.", ""),
    ),
    (
        engine(EngineState.RESTARTING, last_fault="rank 1 died"),
        [WORKER],
        [],
        ("warn", "The engine is being restarted: rank 1 died.", ""),
    ),
    (READY, [node(NodeState.JOINING)], [], ("warn", "m answers; not up: n2.", "")),
    (
        READY,
        [WORKER],
        [FAIL],
        ("good", "All is well: m answers on 2 nodes. Worth a look: gpu.ecc.", ""),
    ),
]


@pytest.mark.parametrize(("seen", "workers", "findings", "said"), VERDICTS, ids=[row[3][1][:40] for row in VERDICTS])
def test_one_sentence_says_it(
    seen: EngineStatus | None, workers: list[NodeStatus], findings: list[FindingLive], said: tuple[str, str, str]
) -> None:
    """What is the matter, which node, and the command: the worst first."""
    status = ClusterStatus(cluster="c", state=ClusterState.READY, nodes=(HEAD, *workers), engine=seen)
    told = verdict(status, [live(HEAD), *(live(one, findings=tuple(findings)) for one in workers)])
    assert (told.level, told.words, told.fix) == said


@pytest.mark.parametrize("name", ["a; rm -rf /", "$(id)", "a\nid", "<script>", "-x", ""])
def test_a_name_is_no_command(name: str) -> None:
    """What a node calls itself never stands in a command that is copied into a shell, unless it is plain."""
    status = ClusterStatus(
        cluster="c", state=ClusterState.READY, nodes=(HEAD, node(NodeState.LOST, name=name)), engine=READY
    )
    assert verdict(status, [live(one) for one in status.nodes]).fix == "shoal status -f shoal.yaml"


def document(*gpus: float) -> ClusterLive:
    """A cluster of two nodes, the second with GPUs that are so busy."""
    status = ClusterStatus(cluster="n1", state=ClusterState.READY, nodes=(HEAD, WORKER), engine=READY)
    second = NodeLive(
        node=WORKER,
        at=3.0,
        gpus=tuple(GpuLive(index=index, name="H100", utilisation=use) for index, use in enumerate(gpus)),
        hcas=(hca(1, 1),),
    )
    rail = RailLive(node="n2", device="mlx5_0", port=1, received_gbps=3.5, sent_gbps=0.0)
    return ClusterLive(at=9.0, status=status, nodes=(live(HEAD), second), rails=(rail,))


def test_the_browsers_document() -> None:
    """Nodes by address, GPUs by index, ports by name with their rates; what is not told is left out."""
    told = tree(document(0.5))
    assert told["nodes"]["192.168.144.2"]["gpus"] == {"0": {"index": 0, "name": "H100", "utilisation": 0.5}}
    assert told["nodes"]["192.168.144.2"]["hcas"]["mlx5_0/1"] == {
        "device": "mlx5_0",
        "port": 1,
        "received_gbps": 3.5,
        "sent_gbps": 0.0,
    }
    assert "nodes" not in told["status"]


def test_a_patch_has_only_what_changed() -> None:
    """One GPU that is busier costs one number."""
    assert patch(tree(document(0.5, 0.1)), tree(document(0.9, 0.1))) == {
        "nodes": {"192.168.144.2": {"gpus": {"0": {"utilisation": 0.9}}}}
    }
    assert patch(tree(document(0.5)), tree(document()))["nodes"] == {"192.168.144.2": {"gpus": {"0": None}}}


def merged(target: Any, change: Any) -> Any:
    """A merge patch applied, as RFC 7396 has it in its own words."""
    if not isinstance(change, dict):
        return change
    out = dict(target) if isinstance(target, dict) else {}
    for name, value in change.items():
        if value is None:
            out.pop(name, None)
        else:
            out[name] = merged(out.get(name), value)
    return out


LEAF = st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
TREE = st.recursive(LEAF, lambda below: st.dictionaries(st.text(max_size=2), below, max_size=3), max_leaves=12).filter(
    lambda one: isinstance(one, dict)
)


@given(TREE, TREE)
def test_a_patch_leads_from_one_document_to_the_other(before: Any, after: Any) -> None:
    """Whatever the two are."""
    assert merged(before, patch(before, after)) == after


def test_a_frame_is_one_event() -> None:
    """Words with line ends stay inside their frame: nothing that a log says can begin an event of its own."""
    said = frame("patch", {"x": "a\n\nevent: whole\ndata: {}\r\n"})
    assert said.count(b"\n") == 3
    assert json.loads(said.split(b"data: ", 1)[1]) == {"x": "a\n\nevent: whole\ndata: {}\r\n"}


class Clock:
    """Moves by a second and a half at each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.5
        return self.now


async def test_nobody_looks_while_nobody_watches() -> None:
    """The first viewer begins the looking, all share it, and it ends with the last."""
    looks: list[float] = []

    async def look() -> ClusterLive:
        looks.append(0.0)
        return document(len(looks) / 100)

    watch = Watch(look, Clock())
    assert looks == []
    one, two = watch.follow(), watch.follow()
    assert [await anext(one), await anext(two)] == [b"retry: 1000\n\n"] * 2
    first, same = await asyncio.gather(anext(one), anext(two))
    assert first == same
    assert first.startswith(b"event: whole\n")
    assert (await anext(one)).startswith(b"event: patch\n")
    assert len(looks) == 2
    await one.aclose()  # type: ignore[attr-defined]
    await two.aclose()  # type: ignore[attr-defined]
    await watch.close()
    assert len(looks) == 2


async def test_a_viewer_is_sent_home_when_the_agent_ends() -> None:
    """An open stream would hold the endpoint, and with it the node's drain."""

    async def look() -> ClusterLive:
        return document()

    watch = Watch(look, Clock())
    viewer = watch.follow()
    await anext(viewer)
    await watch.close()
    assert [part async for part in viewer] == []


async def test_a_look_is_shared_for_a_second() -> None:
    """Programs that ask for the document often do not make the agents answer more often."""
    looks = []

    async def look() -> ClusterLive:
        looks.append(0)
        return document()

    now = [0.0]
    watch = Watch(look, lambda: now[0])
    await watch.view()
    await watch.view()
    assert len(looks) == 1
    now[0] = 2.0
    await watch.view()
    assert len(looks) == 2
