"""The doctor in the guests: a healthy pair fails nothing, and a planted fault is named, of the guest that has it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.vm.conftest import Pair
from tests.vm.guest import Guest
from tests.vm.reading import EVERYTHING, read

from shoal.checks.base import Status
from shoal.checks.run import Choice, Gathered, Report, choose, judge
from shoal.facts.read import node_facts
from shoal.host.capture import load, pack
from shoal.nccl.variables import LAST
from shoal.plan.fabric import plan_fabric

LINKS = Choice(
    only=(
        "rdma.some-port-active",
        "rdma.port-active",
        "roce.interface-up",
        "roce.ipv4",
        "roce.gid-v2-ipv4",
        "cross.mtu",
        "cross.rails",
    )
)


def links(pair: Pair) -> Report:
    """What the checks of links say now. Nobody pings: the pair is broken."""
    chosen = choose(LINKS)
    return judge(chosen, read(pair, chosen))


def failed(report: Report) -> set[tuple[str, str]]:
    return {(item.node, item.id) for item in report.findings if item.status is Status.FAIL}


@contextmanager
def planted(guest: Guest, fault: str, undo: str) -> Iterator[None]:
    """A fault in a guest, taken back afterwards."""
    guest.sh(fault)
    try:
        yield
    finally:
        guest.sh(undo)


def test_a_healthy_pair_fails_nothing(pair: Pair, healthy: Gathered) -> None:
    """Every check of RDMA, RoCE and of both guests together; full packets are sent both ways."""
    report = judge(choose(EVERYTHING), healthy, hosts=pair)
    assert (report.nodes, failed(report), report.late) == (("guest-1", "guest-2"), set(), {})
    well = {(item.node, item.id) for item in report.findings if item.status is Status.OK}
    assert well >= {("", f"cross.{name}") for name in ("mtu", "path-mtu", "ping", "rails", "guids")}
    of_each = ("rdma.some-port-active", "roce.interface-up", "roce.ipv4", "roce.gid-v2-ipv4", "roce.gid-chosen")
    assert well >= {(node, name) for node in report.nodes for name in of_each}


def test_a_capture_of_a_guest_is_judged_as_the_guest(
    healthy: Gathered, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Packed, written, loaded: the same facts, and the same findings."""
    folder = tmp_path_factory.mktemp("captures")
    for taken in healthy.snapshots:
        (folder / f"{taken.name}.tar").write_bytes(pack(taken, "1.0"))
    kept = load(folder)
    assert [node_facts(one) for one in kept] == [node_facts(one) for one in healthy.snapshots]
    chosen = choose(EVERYTHING)
    assert judge(chosen, Gathered(kept)).findings == judge(chosen, healthy).findings


def test_the_fabric_of_the_pair_is_chosen(healthy: Gathered) -> None:
    """Two nodes and one rail; NCCL finds the slot with the IPv4 address of RoCE v2 by itself, so none is pinned."""
    plan = plan_fabric([node_facts(taken) for taken in healthy.snapshots], LAST)
    assert plan.topology == "pair"
    assert [rail.subnets for rail in plan.rails] == [("192.168.100.0/24",)]
    told = [
        (node.name, row.device, row.netdev, row.ipv4, row.mtu, row.gid_type) for node in plan.nodes for row in node.hcas
    ]
    assert told == [(f"guest-{number}", "rxe0", "eth0", f"192.168.100.{number}", 9000, "RoCE v2") for number in (1, 2)]
    assert [[row.chosen and row.usable for row in node.hcas] for node in plan.nodes] == [[True], [True]]
    slots = {f"192.168.100.{number}": row.gid_index for number, node in enumerate(plan.nodes, 1) for row in node.hcas}
    assert slots == {"192.168.100.1": 1, "192.168.100.2": 1}
    chosen = {"NCCL_IB_HCA": "=rxe0", "NCCL_SOCKET_IFNAME": "=eth0", "GLOO_SOCKET_IFNAME": "eth0"}
    settings = [{item.name: item.value for item in node.settings} for node in plan.nodes]
    assert [{name: told[name] for name in chosen} for told in settings] == [chosen, chosen]
    assert [told for told in settings if "NCCL_IB_GID_INDEX" in told] == []


def test_two_sizes_of_packets_are_named(pair: Pair) -> None:
    """1500 bytes at one end against 9000 at the other: said of both together, with both numbers, and nothing else."""
    with planted(pair[1], "ip link set eth0 mtu 1500", "ip link set eth0 mtu 9000"):
        report = links(pair)
    assert failed(report) == {("", "cross.mtu")}
    said = next(item for item in report.findings if item.id == "cross.mtu")
    assert said.evidence == "192.168.100.0/24: guest-1 eth0 9000, guest-2 eth0 1500"
    assert said.fix == "on guest-2: sudo ip link set eth0 mtu 9000"


def test_a_removed_address_is_named(pair: Pair) -> None:
    """Its interface has no address, and so its device no GID that NCCL takes; the rail has one end left."""
    with planted(pair[0], "ip addr del 192.168.100.1/24 dev eth0", "ip addr add 192.168.100.1/24 dev eth0"):
        report = links(pair)
    assert failed(report) == {("guest-1", "roce.gid-v2-ipv4"), ("guest-1", "roce.ipv4"), ("", "cross.rails")}


def test_a_downed_link_is_named(pair: Pair) -> None:
    """The interface is down, and with it the port; the other guest has nobody on its rail."""
    undo = "ip link set eth0 up; ip addr replace 192.168.100.2/24 dev eth0"
    with planted(pair[1], "ip link set eth0 down", undo):
        report = links(pair)
    assert failed(report) == {("guest-2", "roce.interface-up"), ("", "cross.rails")}
    said = next(item for item in report.findings if (item.node, item.id) == ("guest-2", "roce.interface-up"))
    assert said.fix == "sudo ip link set eth0 up"
