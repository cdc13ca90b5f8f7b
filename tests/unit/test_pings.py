"""Pings of full size: which are sent, and what their answers say."""

from collections.abc import Mapping

from shoal.checks import pings
from shoal.facts.net import Address, Netdev, NetFacts
from shoal.facts.node import Fleet, NodeFacts, Ping
from shoal.facts.rdma import RdmaDevice, RdmaFacts, RdmaPort
from shoal.host.snapshot import Reply, Snapshot


def node(name: str, ip: str, mtu: int = 9000) -> NodeFacts:
    """A node with one active RoCE port."""
    port = RdmaPort(1, state="ACTIVE", link_layer="Ethernet", phys_state="LinkUp")
    return NodeFacts(
        name,
        rdma=RdmaFacts((RdmaDevice("mlx5_0", (port,), netdevs=("eth1",)),)),
        net=NetFacts((Netdev("eth1", mtu=mtu, addresses=(Address(ip, 24),)),)),
    )


TWO = Fleet((node("a", "10.0.0.1"), node("b", "10.0.0.2", mtu=1500)))
BIG, SMALL = (
    "ping -n -c 1 -W 1 -M do -s 8972 -I 10.0.0.1 10.0.0.2",
    "ping -n -c 1 -W 1 -M do -s 56 -I 10.0.0.1 10.0.0.2",
)


def test_both_ways_with_the_senders_own_mtu() -> None:
    """28 bytes of headers less; nothing to an address of its own."""
    ways = pings.ways(TWO)
    assert [(way.source.node.name, way.target.node.name, way.mtu) for way in ways] == [
        ("a", "b", 9000),
        ("b", "a", 1500),
    ]
    assert [" ".join(item.argv) for item in pings.request("a", ways).commands] == [BIG, SMALL]
    assert pings.ways(Fleet((TWO.nodes[0],))) == ()


def test_many_nodes_ping_their_neighbours() -> None:
    """All pairs up to eight nodes, then two for each node."""
    many = [node(f"n{place}", f"10.0.0.{place}") for place in range(1, 33)]
    assert len(pings.ways(Fleet(tuple(many[:8])))) == 8 * 7
    assert len(pings.ways(Fleet(tuple(many)))) == 32 * 2


def answered(replies: Mapping[str, Reply]) -> tuple[Ping, ...]:
    return pings.answers(pings.ways(TWO), {"a": Snapshot("a", replies=replies)})


def test_what_answers_say() -> None:
    """A path that is too narrow lets the small one through; without the program nothing is known."""
    narrow = Ping("a", "b", "10.0.0.1", "10.0.0.2", "eth1", 9000, answered=False, small_answered=True)
    assert answered({BIG: Reply(1), SMALL: Reply(0)}) == (narrow,)
    assert answered({BIG: Reply(127), SMALL: Reply(127)}) == ()
    assert answered({}) == ()
