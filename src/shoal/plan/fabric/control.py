"""The control plane: which interface carries the bootstrap of NCCL, Gloo and the rest; one network for every node."""

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shoal.facts.net import Netdev
from shoal.nccl.socket import subnet_of
from shoal.plan.fabric.ports import Node, Seen
from shoal.plan.fabric.rails import default_device
from shoal.plan.fabric.types import Confidence

HOST_IP = "VLLM_HOST_IP"
NOT_THESE = ("lo", "docker", "br-", "virbr", "veth", "cni", "flannel", "cali", "cilium", "tailscale", "wg", "podman")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Control:
    """The interface of one node, or none with the reason."""

    name: str | None
    reason: str
    confidence: Confidence = "high"


def control(nodes: Sequence[Node], chosen: Sequence[Sequence[Seen]]) -> tuple[Control, ...]:
    """The control plane's interface for each node."""
    common = _common(nodes, chosen)
    where = f"every node has an address in {common}" if len(nodes) > 1 else f"this node's first network, {common}"
    return tuple(_for_node(node, seen, common, where) for node, seen in zip(nodes, chosen, strict=True))


def _for_node(node: Node, chosen: Sequence[Seen], common: Network | None, where: str) -> Control:
    net, asked = node.facts.net, node.env.get(HOST_IP, "")
    if holder := _holder(node, asked):
        return Control(holder, f"it has {HOST_IP}, {asked}")
    lost = f"{HOST_IP}={asked} is on no interface; " if asked and net.netdevs is not None else ""
    for dev in _preferred(node, chosen):
        if common in _networks(node, dev):
            sure: Confidence = "medium" if lost or dev.addresses is None else "high"
            return Control(dev.name, lost + where, sure)
    if net.netdevs is None:
        return Control(None, "the node's interfaces are not known")
    return Control(None, f"{lost}no network reaches every node")


def _common(nodes: Sequence[Node], chosen: Sequence[Sequence[Seen]]) -> Network | None:
    """The network that every node has an address in; the best one, as the first node sees it."""
    asked = nodes[0].env.get(HOST_IP, "") if nodes else ""
    reached = [
        [network for dev in _preferred(node, seen) for network in _networks(node, dev)]
        for node, seen in zip(nodes, chosen, strict=True)
    ]
    if not reached:
        return None
    # The others follow where the first was told to be.
    first = sorted(reached[0], key=lambda network: not _holds(network, asked))
    return next((network for network in first if all(network in mine for mine in reached[1:])), None)


def _holder(node: Node, ip: str) -> str | None:
    """The interface that has this address, by its addresses or by the GID tables."""
    if found := node.facts.net.holding(ip) if ip else None:
        return found.name
    slots = (slot for seen in node.ports for slot in (*seen.slots[4], *seen.slots[6]))
    return next((slot.netdev for slot in slots if str(slot.address) == ip), None)


def _holds(network: Network, ip: str) -> bool:
    try:
        return ipaddress.ip_address(ip) in network
    except ValueError:
        return False


def _preferred(node: Node, chosen: Sequence[Seen]) -> Iterator[Netdev]:
    """The node's interfaces: those of chosen RoCE ports, that of the default route, the others; InfiniBand's last."""
    net = node.facts.net
    yield from (seen.netdev for seen in chosen if seen.netdev and (seen.slots[4] or seen.slots[6]))
    usable = [dev for dev in net.netdevs or () if not dev.name.startswith(NOT_THESE) and dev.kind != "loopback"]
    usable = [dev for dev in usable if dev.up is not False and dev.operstate not in {"down", "lowerlayerdown"}]
    route = default_device(net)
    usable.sort(key=lambda dev: (dev.name != route, dev.kind == "infiniband", dev.kind == "wlan", dev.index or 0))
    yield from usable


def _networks(node: Node, dev: Netdev) -> list[Network]:
    """The networks of an interface, by its addresses; where nobody read these, by the GID tables."""
    found = [subnet_of(item) for item in dev.addresses or ()]
    if dev.addresses is None:
        slots = (slot for seen in node.ports for slot in (*seen.slots[4], *seen.slots[6]))
        found = [ipaddress.ip_network(slot.reach) for slot in slots if slot.netdev == dev.name]
    return [network for network in found if network and not network.is_link_local and not network.is_loopback]
