"""Candidates: of all ports those that fit together. One address family, one link layer, one class of rate."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from shoal.facts.rdma import ETHERNET, INFINIBAND
from shoal.nccl import gid
from shoal.plan.fabric.ports import Node, Seen
from shoal.plan.fabric.rails import default_device

HALF = 0.5


@dataclass(frozen=True)
class Candidates:
    """The nodes with what was left out of them, and the family and link layer that the fabric has."""

    nodes: tuple[Node, ...]
    family: int
    layer: str | None


def candidates(nodes: Sequence[Node]) -> Candidates:
    """Leave out what does not fit the rest; each port with its reason."""
    family = _family(nodes)
    nodes = [_only(node, family) for node in nodes]
    layer = _layer(nodes)
    out = []
    for node in nodes:
        ports = _one_layer(node.ports, layer)
        ports = _no_vfs_beside_their_card(ports)
        ports = _one_rate(ports)
        out.append(replace(node, ports=tuple(_no_management(node, ports))))
    return Candidates(tuple(out), family, layer)


def _usable(ports: Sequence[Seen]) -> list[Seen]:
    return [seen for seen in ports if seen.usable]


def _family(nodes: Sequence[Node]) -> int:
    """IPv4, unless no RoCE port has it or every node was told AF_INET6."""
    roce = [seen for node in nodes for seen in node.usable if seen.port.link_layer == ETHERNET]
    told = bool(nodes) and all(node.env.get(gid.FAMILY) == "AF_INET6" for node in nodes)
    if roce and (told or not any(seen.slots[4] for seen in roce)) and any(seen.slots[6] for seen in roce):
        return 6
    return 4


def _only(node: Node, family: int) -> Node:
    why = f"no RoCE v2 slot with an IPv{family} address"
    ports = [
        seen.without(why) if seen.usable and seen.port.link_layer == ETHERNET and not seen.slots[family] else seen
        for seen in node.ports
    ]
    return replace(node, ports=tuple(ports))


def _layer(nodes: Sequence[Node]) -> str | None:
    """The link layer that most nodes have; then the one with the higher rate."""
    ranked = []
    for layer in (INFINIBAND, ETHERNET):
        mine = [[seen for seen in node.usable if seen.port.link_layer == layer] for node in nodes]
        if any(mine):
            ranked.append((sum(map(bool, mine)), sum(seen.rate for ports in mine for seen in ports), layer))
    return max(ranked, key=lambda item: item[:2])[2] if ranked else None


def _one_layer(ports: Sequence[Seen], layer: str | None) -> list[Seen]:
    count = sum(seen.port.link_layer == layer for seen in _usable(ports))
    why = f"beside {count} {layer} port(s): NCCL would mix the link layers, and the ranks could not connect"
    return [
        seen.without(f"{seen.port.link_layer} {why}") if seen.usable and seen.port.link_layer != layer else seen
        for seen in ports
    ]


def _no_vfs_beside_their_card(ports: Sequence[Seen]) -> list[Seen]:
    cards = {seen.device.pci: seen.device.name for seen in _usable(ports) if not seen.device.is_vf}
    return [
        seen.without(f"a virtual function of {cards[seen.device.physfn]}, which is used itself")
        if seen.usable and seen.device.is_vf and seen.device.physfn in cards
        else seen
        for seen in ports
    ]


def _one_rate(ports: Sequence[Seen]) -> list[Seen]:
    best = max((seen.rate for seen in _usable(ports)), default=0.0)
    return [
        seen.without(f"{seen.rate:g} Gb/s beside {best:g} Gb/s: less than half")
        if seen.usable and 0 < seen.rate < best * HALF
        else seen
        for seen in ports
    ]


def _no_management(node: Node, ports: Sequence[Seen]) -> list[Seen]:
    """Leave out the port with the default route, where others remain: it is the way out, not the fabric."""
    route = default_device(node.facts.net)
    if route is None or all(seen.netdev and seen.netdev.name == route for seen in _usable(ports)):
        return list(ports)
    return [
        seen.without(f"{route} has the default route: the management network")
        if seen.usable and seen.port.link_layer == ETHERNET and seen.netdev and seen.netdev.name == route
        else seen
        for seen in ports
    ]
