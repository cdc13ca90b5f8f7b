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
    return tuple(_for_node(node, seen, common) for node, seen in zip(nodes, chosen, strict=True))


def _for_node(node: Node, chosen: Sequence[Seen], common: Network | None) -> Control:
    net, asked = node.facts.net, node.env.get(HOST_IP, "")
    if holder := net.holding(asked) if asked else None:
        return Control(holder.name, f"it has {HOST_IP}, {asked}")
    lost = f"{HOST_IP}={asked} is on no interface; " if asked and net.netdevs is not None else ""
    for dev in _preferred(node, chosen):
        networks = _networks(dev)
        if common in networks:
            return Control(dev.name, f"{lost}every node has an address in {common}", "medium" if lost else "high")
    if net.netdevs is None:
        return Control(None, "the node's interfaces are not known")
    return Control(None, f"{lost}no network reaches every node")


def _common(nodes: Sequence[Node], chosen: Sequence[Sequence[Seen]]) -> Network | None:
    """The network that every node has an address in; the best one, as the first node sees it."""
    asked = nodes[0].env.get(HOST_IP, "") if nodes else ""
    first = [network for dev in _preferred(nodes[0], chosen[0]) for network in _networks(dev)] if nodes else []
    if asked and (holder := nodes[0].facts.net.holding(asked)):
        # The others follow where the first was told to be.
        first = [network for network in _networks(holder) if _holds(network, asked)] + first
    others = [
        {network for dev in _preferred(node, seen) for network in _networks(dev)}
        for node, seen in zip(nodes[1:], chosen[1:], strict=True)
    ]
    return next((network for network in first if all(network in mine for mine in others)), None)


def _holds(network: Network, ip: str) -> bool:
    return ipaddress.ip_address(ip) in network


def _preferred(node: Node, chosen: Sequence[Seen]) -> Iterator[Netdev]:
    """The node's interfaces: those of chosen RoCE ports, that of the default route, the others; InfiniBand's last."""
    net = node.facts.net
    yield from (seen.netdev for seen in chosen if seen.netdev and (seen.slots[4] or seen.slots[6]))
    usable = [dev for dev in net.netdevs or () if not dev.name.startswith(NOT_THESE) and dev.kind != "loopback"]
    usable = [dev for dev in usable if dev.up is not False and dev.operstate not in {"down", "lowerlayerdown"}]
    route = default_device(net)
    usable.sort(key=lambda dev: (dev.name != route, dev.kind == "infiniband", dev.kind == "wlan", dev.index or 0))
    yield from usable


def _networks(dev: Netdev) -> list[Network]:
    found = (subnet_of(item) for item in dev.addresses or ())
    return [network for network in found if network and not network.is_link_local and not network.is_loopback]
