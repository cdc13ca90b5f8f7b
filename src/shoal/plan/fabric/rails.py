"""Rails: which ports reach each other, told by their subnets; and the shape that the rails make."""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from shoal.facts.net import NetFacts
from shoal.facts.rdma import INFINIBAND
from shoal.plan.fabric.ports import Node, Seen
from shoal.plan.fabric.types import Port, Rail, Topology

Member = tuple[int, Port]


def rails(nodes: Sequence[Node], ports: Mapping[int, Sequence[Seen]], family: int) -> tuple[Rail, ...]:
    """Connected components of (node, port) by subnet, those of a single node among them."""
    reach = {(number, seen.key): _reach(seen, family) for number in range(len(nodes)) for seen in ports.get(number, ())}
    left, out = dict(reach), []
    while left:
        subnets, members = set(next(iter(left.values()))), set()
        while near := {member for member, mine in left.items() if mine & subnets}:
            subnets |= set().union(*(left.pop(member) for member in near))
            members |= near
        if not members:  # a port without any subnet
            members = {next(iter(left))}
            left.pop(next(iter(left)))
        ordered = tuple(member for member in reach if member in members)
        out.append(Rail(tuple(sorted(subnets)), ordered, _assumed(ports, ordered, family)))
    return tuple(out)


def _reach(seen: Seen, family: int) -> frozenset[str]:
    if seen.port.link_layer == INFINIBAND:
        return frozenset({f"InfiniBand {seen.prefix}"})
    return frozenset(slot.reach for slot in seen.slots[family])


def _assumed(ports: Mapping[int, Sequence[Seen]], members: Iterable[Member], family: int) -> bool:
    wanted = set(members)
    mine = [seen for number, items in ports.items() for seen in items if (number, seen.key) in wanted]
    return any(slot.subnet is None for seen in mine for slot in seen.slots[family])


def shape(nodes: Sequence[Node], found: Sequence[Rail]) -> tuple[Topology, tuple[int, ...]]:
    """The topology that the rails make, and the nodes from cable to cable where it is a ring."""
    count = len(nodes)
    if not found:
        return "none", ()
    if count == 1:
        return "single", ()
    joined = [rail for rail in found if len(rail.nodes) > 1]
    spanning = [rail for rail in joined if len(rail.nodes) == count]
    if spanning:
        if count == 2:
            return "pair", ()
        return ("switch" if len(spanning) == 1 or _routed(nodes, spanning) else "rail-only"), ()
    order = _ring(count, joined)
    return ("ring", order) if order else ("partial", ())


def _ring(count: int, joined: Sequence[Rail]) -> tuple[int, ...]:
    """The nodes in the order of the cables; empty where they make no single ring of cables between two nodes each."""
    beside: dict[int, set[int]] = {number: set() for number in range(count)}
    for rail in joined:
        if len(rail.nodes) != 2:
            return ()
        one, other = sorted(rail.nodes)
        beside[one].add(other)
        beside[other].add(one)
    if any(len(near) != 2 for near in beside.values()):
        return ()
    order = [0, min(beside[0])]
    while (step := next(iter(beside[order[-1]] - {order[-2]}))) != 0:
        order.append(step)
    return tuple(order) if len(order) == count else ()


def _routed(nodes: Sequence[Node], spanning: Sequence[Rail]) -> bool:
    """Whether a gateway leads from rail to rail, or nobody read the routes. InfiniBand needs none."""
    if any(text.startswith("InfiniBand") for rail in spanning for text in rail.subnets):
        return True
    return all(node.facts.net.routes is None or _leads_on(node, spanning) for node in nodes)


def _leads_on(node: Node, spanning: Sequence[Rail]) -> bool:
    own = {seen.netdev.name for seen in node.usable if seen.netdev}
    others = [ipaddress.ip_network(text) for rail in spanning for text in rail.subnets if "/" in text]
    return any(
        route.gateway is not None and route.device in own and _covers(route.destination, others)
        for route in node.facts.net.routes or ()
    )


def _covers(destination: str, others: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    if destination == "default":
        return True
    try:
        wide = ipaddress.ip_network(destination, strict=False)
    except ValueError:
        return False
    return any(wide.version == other.version and wide.supernet_of(other) for other in others)  # type: ignore[arg-type]


def reaches_all(nodes: Sequence[Node], found: Sequence[Rail]) -> bool:
    """Whether every node has a gateway on its own ports to the subnets of the others: a routed fabric."""
    return len(nodes) > 1 and all(_leads_on(node, found) for node in nodes)


def default_device(net: NetFacts) -> str | None:
    """The interface of the default route with the lowest metric."""
    routes = [route for route in net.routes or () if route.destination in {"default", "0.0.0.0/0"}]
    return min(routes, key=lambda route: route.metric or 0).device if routes else None
