"""The rail between the guests, measured by real perftest over real queue pairs. Its rates say nothing of a card."""

from tests.vm.conftest import Pair

from shoal.bench.perftest import Shape
from shoal.bench.rails import measure, ways
from shoal.checks.run import Gathered
from shoal.facts.read import node_facts
from shoal.nccl.variables import LAST
from shoal.plan.fabric import plan_fabric


def test_the_rail_of_the_pair_is_measured(pair: Pair, healthy: Gathered) -> None:
    """One way, by the slots that NCCL takes: bandwidth and latency are numbers, and soft-RoCE is told as what it is."""
    nodes = [node_facts(taken) for taken in healthy.snapshots]
    found = ways(plan_fabric(nodes, LAST), nodes)
    assert [(way.rail, way.client.name, way.client.gid, way.server.address) for way in found] == [
        ("192.168.100.0/24", "guest-1 rxe0", 1, "192.168.100.2")
    ]
    rows = list(measure(found, {guest.name: guest for guest in pair}, Shape(65536, 2, 1, 20)))
    assert [(row.grade, row.words) for row in rows] == [
        ("unknown", "soft-RoCE: it works, and its rate says nothing of a card")
    ]
    assert all(row.gbps and row.usec for row in rows), rows
