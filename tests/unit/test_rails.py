"""Rails measured by perftest: which ways, which words, what the tables say, and the verdict against known hardware."""

from dataclasses import replace

import pytest
from tests.conftest import TESTS

from shoal.bench import perftest, references
from shoal.bench.measure import Measured as Fabric
from shoal.bench.measure import Rank, Row, verdict
from shoal.bench.perftest import BANDWIDTH, LATENCY, Shape
from shoal.bench.rails import FIRST_DOOR, End, Way, judge, measure, ways
from shoal.facts.read import node_facts
from shoal.host.base import Result
from shoal.host.capture import load
from shoal.host.fake import FakeHost
from shoal.nccl.variables import LAST
from shoal.plan.fabric import plan_fabric

# perftest 4.5 (Debian 12).
WIDE = """\
---------------------------------------------------------------------------------------
                    RDMA_Write BW Test
 Dual-port       : OFF		Device         : mlx5_0
---------------------------------------------------------------------------------------
 #bytes     #iterations    BW peak[Gb/sec]    BW average[Gb/sec]   MsgRate[Mpps]
 1048576    141250           0.00               {speed}               0.023541
---------------------------------------------------------------------------------------
"""
QUICK = """\
---------------------------------------------------------------------------------------
 #bytes #iterations    t_min[usec]    t_max[usec]  t_typical[usec]    t_avg[usec]    t_stdev[usec]
 8       1000          1.41           5.20         {delay}             1.48           0.05
---------------------------------------------------------------------------------------
"""
END = End("gx1", "mlx5_0", 1, 3, "10.0.0.1", 400.0, "Ethernet")
WAY = Way("10.0.0.0/24", END, replace(END, node="gx2", device="mlx5_1", gid=5, address="10.0.0.2"))
SHAPE = Shape(1 << 20, 3, 4, 1000)


def wide(speed: float) -> str:
    return WIDE.format(speed=speed)


def quick(delay: float = 1.47) -> str:
    return QUICK.format(delay=delay)


def of(way: Way, **changes: object) -> Way:
    """The same way with both ends changed."""
    return replace(way, client=replace(way.client, **changes), server=replace(way.server, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "gbps"),
    [
        (wide(394.95), 394.95),
        ("#bytes #iterations BW peak[MB/sec] BW average[MB/sec] MsgRate[Mpps]\n65536 5000 0.00 11000.00 0.17\n", 92.27),
        (
            "#bytes #iterations BW peak[MiB/sec] BW average[MiB/sec] Msg\n65536 5000 0.00 11000.00 0.17\n",
            92.27,
        ),
        ("Couldn't connect to 10.0.0.2:18515\n", None),
        ("", None),
    ],
)
def test_the_bandwidth_is_read_in_any_unit(text: str, gbps: float | None) -> None:
    """Gb/s as asked for, and what versions without that option print."""
    found = perftest.gbps(text)
    assert (None if found is None else round(found, 2)) == gbps


def test_the_latency_is_the_typical_one() -> None:
    """The fifth column of the table by iterations; none where there is no such table."""
    assert (perftest.microseconds(quick(1.47)), perftest.microseconds(wide(1.0))) == (1.47, None)


def test_the_neighbours_of_each_rail_are_measured() -> None:
    """A Spark pair has two rails: one way on each, by the slots that NCCL takes."""
    nodes = [node_facts(taken) for taken in load(TESTS / "machines" / "spark-pair")]
    found = ways(plan_fabric(nodes, LAST), nodes)
    assert [(way.client.node, way.server.node, way.client.device == way.server.device) for way in found] == [
        (nodes[0].name, nodes[1].name, True)
    ] * len(found)
    assert len({way.rail for way in found}) == len(found) == 2
    assert all(way.server.gid is not None and way.server.real and "GB10" in way.server.gpus[0] for way in found)


def test_three_on_a_rail_make_a_circle() -> None:
    """A ring of cables is measured cable by cable, both ends being different nodes."""
    nodes = [node_facts(taken) for taken in load(TESTS / "machines" / "spark-ring")]
    found = ways(plan_fabric(nodes, LAST), nodes)
    assert {frozenset((way.client.node, way.server.node)) for way in found} == {
        frozenset((one.name, two.name)) for one in nodes for two in nodes if one is not two
    }


@pytest.mark.parametrize(
    ("way", "speed", "delay", "grade", "words"),
    [
        (WAY, 394.95, 1.47, "good", "99% of 400 Gb/s"),
        (WAY, 300.0, 1.47, "slow", "75% of 400 Gb/s, expected 360 Gb/s (scitix/sichek: 360 of 400 Gb/s)"),
        (of(WAY, layer="InfiniBand"), 370.0, 1.47, "slow",
         "92% of 400 Gb/s, expected 380 Gb/s (Azure/azurehpc-health-checks: 380 of 400 Gb/s)"),
        (of(WAY, rate_gbps=100.0), 80.0, 1.47, "good", "80% of 100 Gb/s"),
        (of(WAY, rate_gbps=100.0), 70.0, 1.47, "slow",
         "70% of 100 Gb/s, expected 75 Gb/s (75% of the link's rate are usual)"),
        (of(WAY, rate_gbps=200.0, gpus=("NVIDIA GB10",)), 95.0, 1.47, "good", "48% of 200 Gb/s"),
        (of(WAY, rate_gbps=200.0), 95.0, 1.47, "slow",
         "48% of 200 Gb/s, expected 175 Gb/s (scitix/sichek: 175 of 200 Gb/s)"),
        (WAY, 394.95, 9.0, "slow", "99% of 400 Gb/s; 9 us, more than imbue-ai/cluster-health: 4.2 us"),
        (of(WAY, rate_gbps=None), 394.95, 1.47, "unknown", "the link's rate is not known"),
        (of(WAY, real=False), 0.5, 90.0, "unknown", "soft-RoCE: it works, and its rate says nothing of a card"),
    ],
)  # fmt: skip
def test_the_verdict(way: Way, speed: float, delay: float, grade: str, words: str) -> None:
    """Against known hardware where a row fits, else three quarters of the rate; each with its source."""
    found = judge(way, wide(speed), quick(delay))
    assert (found.gbps, found.usec, found.grade, found.words) == (speed, delay, grade, words)


def hosts(**client: Result | str) -> dict[str, FakeHost]:
    """Two hosts that know perftest's calls; ``client`` says otherwise for one program."""
    made = {}
    for end in (WAY.client, WAY.server):
        replies: dict[str, Result | str | bytes] = {}
        for step, (program, text) in enumerate(((BANDWIDTH, wide(394.95)), (LATENCY, quick()))):
            words = " ".join(perftest.argv(program, end.device, end.port, end.gid, SHAPE, FIRST_DOOR + step))
            tail = f" {WAY.server.address}" if end is WAY.client else ""
            replies[f"timeout 60 {words}{tail}"] = client.get(program, text) if tail else text
        made[end.node] = FakeHost(replies=replies, name=end.node)
    return made


def test_both_ends_are_called_by_their_own_devices_and_slots() -> None:
    """The client's words are the server's, but for its own device and slot, and the server's address."""
    machines = hosts()
    rows = list(measure((WAY,), machines, SHAPE, pause=lambda _: None))
    assert [(row.gbps, row.usec, row.grade) for row in rows] == [(394.95, 1.47, "good")]
    common = ("-p", "18515", "-F", "-s", "1048576", "-D", "3", "-q", "4", "--report_gbits")
    head = ("timeout", "60", "ib_write_bw")
    assert machines["gx2"].calls[0] == (*head, "-d", "mlx5_1", "-i", "1", "-x", "5", *common)
    assert machines["gx1"].calls[0] == (*head, "-d", "mlx5_0", "-i", "1", "-x", "3", *common, "10.0.0.2")


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Result((), 127, "", "ib_write_bw: not found"), "gx1 has no ib_write_bw: apt install perftest"),
        (Result((), 1, "---\n", " Unable to find the Infiniband/RoCE device\n"),
         "ib_write_bw on gx1 mlx5_0: Unable to find the Infiniband/RoCE device"),
        (Result((), 1, "", "Couldn't connect to 10.0.0.2:18515\n"),
         "ib_write_bw on gx1 mlx5_0: Couldn't connect to 10.0.0.2:18515"),
        ("a version that prints something else\n", "ib_write_bw printed no table that is known"),
    ],
)  # fmt: skip
def test_a_way_that_fails_is_told_with_its_reason(reply: Result | str, words: str) -> None:
    """And the others are measured all the same."""
    rows = list(measure((WAY,), hosts(ib_write_bw=reply), SHAPE, pause=lambda _: None))
    assert [(row.gbps, row.grade, row.words) for row in rows] == [(None, "failed", words)]


def test_a_client_waits_for_its_server() -> None:
    """A server that listens a moment later is met at the next try, and the tries have an end."""
    waits: list[float] = []
    late = Result((), 1, "", "Couldn't connect to 10.0.0.2:18515\n")
    list(measure((WAY,), hosts(ib_write_bw=late), SHAPE, pause=waits.append))
    assert waits == [0.5] * 30


def test_collectives_are_judged_by_known_hardware() -> None:
    """A Spark pair reaches 21.875 GB/s in all_gather over links that say 200 Gb/s; no share of those is asked for."""
    rank = Rank("10.0.0.1", "2.13.0", "eth0", ("mlx5_0",), 400.0, 1.0, "NVIDIA GB10")
    ranks = (rank, replace(rank, address="10.0.0.2"))
    slow = Fabric("nccl", ranks, (Row("all_gather", 1 << 30, 0.1, 6.0, 3.04),), ())
    told = verdict(slow, 400.0)
    expected = (
        "all_gather reaches 3.04 GB/s (busbw): below the 21.875 that are expected (NVIDIA/dgx-spark-playbooks: a pair)"
    )
    assert (told.words, told.good) == (expected, False)
    assert verdict(replace(slow, rows=(Row("all_gather", 1 << 30, 0.02, 47.0, 23.74),)), 400.0).good is True
    assert "of the link's" in verdict(replace(slow, backend="gloo"), 400.0).words


def test_every_reference_names_its_source() -> None:
    """A repository, and what it says."""
    rows = [row.source for row in (*references.LINKS, *references.COLLECTIVES)] + [references.LATENCY_SOURCE]
    assert [source for source in rows if "/" not in source.partition(":")[0] or not source.partition(": ")[2]] == []
