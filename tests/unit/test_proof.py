"""Proof of RDMA: counters, shares, what NCCL says, and the sentence that comes of it."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.bench import proof
from shoal.bench.counters import STUCK, WIDTH, WORD, Moved, NodeProof, Port, Process, between, moved, ports, turned_off
from shoal.bench.proof import Row, Traffic, judge
from shoal.facts.net import Address, Netdev, NetFacts
from shoal.facts.rdma import Gid, RdmaDevice, RdmaFacts, RdmaPort
from shoal.ops.prove import driven
from shoal.ui.prove_page import page

GIB = 1 << 30
COUNTS = st.integers(0, WIDTH - 1)


def port(name: str = "mlx5_0", sent: int | None = 0, received: int | None = 0, **more: Any) -> Port:
    """A planned port; bytes, not words."""
    words = [None if value is None else value // WORD for value in (sent, received)]
    return Port(hca=name, rail="10.0.0.0/24", planned=True, active=True, sent=words[0], received=words[1], **more)


def node(number: int, *found: Port, processes: tuple[Process, ...] = (), **more: Any) -> NodeProof:
    return NodeProof(name=f"n{number}", address=f"10.0.0.{number}", ports=found, processes=processes, **more)


def rank(number: int, network: str = "IB", **more: Any) -> Process:
    words = {"file": f"n.{number}.log", "pid": number, "alive": True, "rank": number, "ranks": 2, "nodes": 2}
    return Process.model_validate(words | {"network": network, "complete": True} | more)


def pair(*found: Port) -> tuple[NodeProof, NodeProof]:
    return node(1, *found), node(2, *found)


@given(COUNTS, st.integers(0, WIDTH // 2 - 1))
def test_a_counter_that_wraps_loses_nothing(before: int, step: int) -> None:
    """What was added is what moved, beyond the end of 64 bits too, where the counter was in their upper half."""
    after = (before + step) % WIDTH
    if after >= before or before >= WIDTH // 2:
        assert moved(before, after).bytes == step or STUCK in {before, after}


@given(COUNTS | st.none(), COUNTS | st.none())
def test_what_moved_is_never_negative_and_never_made_up(before: int | None, after: int | None) -> None:
    """Without both readings nothing is said; else a number from zero on, and exactly what came since a reset."""
    told = moved(before, after)
    if before is None or after is None:
        assert told == Moved(None)
    else:
        assert told.bytes is None or 0 <= told.bytes < WIDTH
    if before is not None and after is not None and after < before < WIDTH // 2:
        assert told == Moved(after, at_least=True)


def test_a_counter_of_32_bits_that_stands_at_its_end_says_nothing() -> None:
    """One that stood there before and after tells nothing; one that came there has moved at least so far."""
    assert (moved(STUCK, STUCK), moved(STUCK - 5, STUCK)) == (Moved(None), Moved(5, at_least=True))


def test_bytes_between_two_looks_need_the_same_unit() -> None:
    """A port that was not there, or whose MTU changed between the looks, tells nothing."""
    now = port(sent=8 * WORD, received=4 * WORD)
    assert between(port(), now) == (Moved(32), Moved(16))
    assert between(None, now) == between(port().model_copy(update={"unit": 1024}), now) == (Moved(None), Moved(None))


NET = NetFacts(netdevs=(Netdev("eth0", mtu=9000, addresses=(Address("192.168.100.1", 24),)), Netdev("eth1", mtu=1500)))
GID = Gid(0, "0000:0000:0000:0000:0000:ffff:c0a8:6401", "RoCE v2", "eth0")


def rxe(name: str = "rxe0", netdev: str = "eth0", **more: Any) -> RdmaDevice:
    words: dict[str, Any] = {"state": "ACTIVE", "link_layer": "Ethernet", "gids": (GID,)}
    words["hw_counters"] = {"sent_pkts": 10, "rcvd_pkts": 3}
    return RdmaDevice(name, (RdmaPort(1, **(words | more)),), netdevs=(netdev,))


def test_packets_of_soft_roce_are_an_estimate_by_its_mtu() -> None:
    """Where the kernel counts no bytes, packets count with the MTU that fits the interface, and are said to be that."""
    told = ports(RdmaFacts((rxe(), rxe("rxe1", "eth1"))), NET, {}, (2, 27))
    assert [(one.name, one.unit, one.estimate, one.sent, one.received, one.planned) for one in told] == [
        ("rxe0", 4096, True, 10, 3, True),
        ("rxe1", 1024, True, 10, 3, True),
    ]
    assert told[0].rail == "192.168.100.0/24"


def test_bytes_of_a_card_are_exact() -> None:
    """`port_xmit_data` counts words of 4 bytes, whatever else the card counts."""
    card = rxe("mlx5_0", counters={"port_xmit_data": 7, "port_rcv_data": 5})
    (told,) = ports(RdmaFacts((card,)), NET, {}, (2, 27))
    assert (told.unit, told.estimate, told.sent, told.received) == (WORD, False, 7, 5)


def test_nothing_is_counted_where_nothing_can_be_read() -> None:
    """A port without counters is listed, and its counts are not known."""
    (told,) = ports(RdmaFacts((rxe(hw_counters=None),)), NET, {}, (2, 27))
    assert (told.sent, told.received, told.planned) == (None, None, True)


@pytest.mark.parametrize(
    ("env", "planned", "off"),
    [
        ({}, [True, True], ""),
        ({"NCCL_IB_HCA": "=rxe1"}, [False, True], ""),
        ({"NCCL_IB_DISABLE": "1"}, [False, False], "NCCL_IB_DISABLE=1"),
        ({"NCCL_IB_DISABLE": "0"}, [True, True], ""),
        ({"NCCL_NET": "Socket"}, [False, False], "NCCL_NET=Socket"),
    ],
)
def test_planned_is_what_nccl_takes(env: dict[str, str], planned: list[bool], off: str) -> None:
    """ACTIVE ports that NCCL_IB_HCA does not leave out, and none where somebody turned RDMA off."""
    told = ports(RdmaFacts((rxe(), rxe("rxe1"))), NET, env, (2, 27))
    assert ([one.planned for one in told], turned_off(env)) == (planned, off)


def after(*moves: int | None) -> tuple[NodeProof, NodeProof]:
    """Both nodes after so many bytes on each HCA."""
    return pair(*(port(f"mlx5_{at}", value, value) for at, value in enumerate(moves)))


BEFORE = after(0, 0)
KNOWN = Traffic(expected=GIB)
IB, SOCKET = (rank(0),), (rank(0, "Socket"),)
TCP, PARTLY = "serving over TCP, although RDMA is planned: n1, n2: ", "only partly over RDMA: n1, n2: "
ALL, MOVING = "over RDMA: each HCA carried its share", "over RDMA: RDMA bytes moved on every node"
BLIND = (
    "not proven: n1, n2: the byte counters of mlx5_0, mlx5_1 tell nothing; look into "
    "/sys/class/infiniband/*/ports/*/counters"
)
IDLE = "no RDMA traffic on mlx5_0, mlx5_1: "
CASES: dict[str, tuple[tuple[NodeProof, NodeProof], Traffic, str, str]] = {
    "equal": (after(GIB // 2, GIB // 2), KNOWN, "rdma", ALL),
    "within 25 %": (after(int(GIB * 0.4), int(GIB * 0.6)), KNOWN, "rdma", ALL),
    "one idle": (after(GIB, 0), KNOWN, "partly", PARTLY + "mlx5_1: idle"),
    "uneven": (after(int(GIB * 0.8), int(GIB * 0.2)), KNOWN, "partly", PARTLY + "mlx5_1: less than its share"),
    "none": (after(4096, 0), KNOWN, "tcp", TCP + IDLE + "4,096 bytes of at least 1,073,741,824"),
    "half": (
        after(GIB // 4, GIB // 4),
        KNOWN,
        "partly",
        PARTLY + "536,870,912 of 1,073,741,824 bytes went over mlx5_0, mlx5_1",
    ),
    "engine, one rail idle": (after(GIB, 0), Traffic(tokens=100), "rdma", MOVING),
    "engine, nothing": (after(0, 0), Traffic(tokens=100), "tcp", TCP + IDLE + "0 bytes of at least 51,200"),
    "unreadable": (after(None, None), KNOWN, "unknown", BLIND),
    "one unreadable": (after(GIB, None), KNOWN, "unknown", "not proven: n1, n2: mlx5_1: not readable"),
}


@pytest.mark.parametrize("case", CASES)
def test_bytes_become_a_verdict(case: str) -> None:
    """Two nodes with two HCAs each, by what their counters show: verdict and sentence."""
    now, traffic, verdict, words = CASES[case]
    told = judge(BEFORE, now, traffic)
    assert (told.verdict, told.words, told.proven) == (verdict, words, verdict == "rdma")


def test_a_counter_that_was_reset_is_no_verdict_on_the_fabric() -> None:
    """Less bytes than expected after a reset are not known to be missing."""
    told = judge(after(8 * GIB, 8 * GIB), after(4096, 4096), KNOWN)
    assert (told.verdict, {row.verdict for row in told.rows}) == ("unknown", {proof.RESET})


def test_traffic_one_way_counts_on_both_sides() -> None:
    """A write by one node is sent there and received here: both have carried it, and it is not doubled."""
    now = node(1, port(sent=GIB)), node(2, port(received=GIB))
    told = judge(pair(port()), now, KNOWN)
    assert (told.verdict, [row.seen for row in told.rows]) == ("rdma", [GIB, GIB])


def test_what_nccl_says_outweighs_bytes_of_others() -> None:
    """A rank that uses sockets is over TCP, although somebody else's bytes moved on its HCAs."""
    now = node(1, port(sent=GIB), processes=SOCKET), node(2, port(sent=GIB), processes=IB)
    told = judge(pair(port()), now, Traffic(tokens=10))
    assert told.words == "serving over TCP, although RDMA is planned: n1: NCCL in rank 0 uses NET/Socket"
    assert [(one.verdict, one.transport) for one in told.nodes] == [("tcp", "NET/Socket"), ("rdma", "NET/IB")]


def test_ranks_of_one_node_need_no_network() -> None:
    """A process whose ranks are all on its node says nothing of the network, whatever it would use."""
    local = rank(0, "Socket", nodes=1)
    assert (proof.over_sockets((local,)), proof.transport((local,)), proof.gdr((local,))) == ("", "", None)


def test_channels_tell_more_than_the_network_that_was_chosen() -> None:
    """Transports in use are told where there are any, with the plugin's name as NCCL has it."""
    used = rank(0, "IB", transports={"NET/IBext_v8": 4, "P2P": 8}, gdr=True)
    assert (proof.transport((used, rank(1))), proof.gdr((used,))) == ("NET/IBext_v8, NET/IB", True)


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ((node(1, port()),), "one node: its traffic crosses no network"),
        (
            (node(1, port()), node(2, port(), disabled="NCCL_IB_DISABLE=1")),
            "RDMA is turned off: NCCL_IB_DISABLE=1 on n2; traffic goes over TCP, as somebody wanted",
        ),
        ((node(1, port()), node(2)), "no RDMA device is active on n2: traffic goes over TCP"),
        (
            (node(1, cpu=True), node(2, cpu=True)),
            "vLLM is a CPU build here: its ranks have no NCCL, and their tensors go over TCP, by Gloo",
        ),
    ],
)
def test_where_nothing_is_planned_nothing_can_be_proven(nodes: tuple[NodeProof, ...], words: str) -> None:
    """One node, RDMA turned off, no devices, no NCCL: said as it is, and not proven."""
    told = judge(nodes, nodes, KNOWN)
    assert (told.verdict, told.words, told.proven, told.rows) == ("nothing", words, False, ())


def test_a_third_node_without_a_device_is_named() -> None:
    """Where two nodes have RDMA and one has not, its traffic goes over TCP."""
    before = (*pair(port()), node(3))
    told = judge(before, (*pair(port(sent=GIB)), node(3)), KNOWN)
    assert told.words.endswith("n3: it has no RDMA device that NCCL would take, and the others have")


def test_what_the_bench_drove_is_known() -> None:
    """Every operation of an all_reduce moves at least its size through each node."""
    rows = [{"kind": "look"}, {"size": 64, "operations": 3}, {"size": 256, "operations": 2}]
    assert driven(rows) == 64 * 3 + 256 * 2


def test_the_page_has_a_sentence_and_a_line_for_each_device() -> None:
    """Sentence first, then a table, and what the sign of an estimate means where there is one."""
    now = node(1, port(sent=GIB), processes=(rank(0, gdr=True),)), node(2, port(sent=GIB, estimate=True))
    told = judge(pair(port()), now, KNOWN)
    assert page(told) == (
        "proven: over RDMA: each HCA carried its share\n\n"
        "node  HCA     rail         expected  seen    share  transport  GDR  verdict\n"
        "n1    mlx5_0  10.0.0.0/24  1 GiB     1 GiB   100%   NET/IB     yes  carried its share\n"
        "n2    mlx5_0  10.0.0.0/24  1 GiB     ~1 GiB  100%   -          -    carried its share\n"
        "~ packets times the MTU: the device counts no bytes, and this is an upper bound"
    )


def test_the_page_of_nothing_is_a_sentence() -> None:
    """Where there is nothing to prove there is no table; unknown cells are dashes."""
    assert page(judge((node(1),), (node(1),), KNOWN)) == "not proven: one node: its traffic crosses no network"
    told = judge(pair(port()), pair(port(sent=None, received=None)), Traffic(tokens=1))
    blank = replace(told, rows=(Row("n1", "mlx5_0", "", None, None, None, estimate=False, verdict="not readable"),))
    assert page(blank).splitlines()[-1] == "n1    mlx5_0  -     -         -     -      -          -    not readable"
