"""Which ports of a node make its fabric, and what NCCL is told about them."""

from shoal.checks.base import Verdict, skip, unknown
from shoal.checks.views import Port, above, active, effective_env, nccl_version, netdev_of, ports, without_rdma
from shoal.facts.net import Address, Netdev
from shoal.facts.node import NodeFacts
from shoal.nccl import hca, network
from shoal.nccl.variables import LAST, dotted, parse_version

SLOWEST = 0.5  # of the fastest port: slower ones are for management or storage


def said_version(node: NodeFacts) -> str:
    """The version for a sentence, with the word that it is assumed."""
    known = parse_version(node.stack.nccl or "")
    return f"NCCL {node.stack.nccl}" if known else f"NCCL {dotted(LAST)} (assumed: the installed one is not known)"


def plugin(node: NodeFacts) -> str | None:
    """The network plugin that chooses devices and GIDs in NCCL's place, in words; None where none does."""
    found = network.network(effective_env(node), node.stack.plugin)
    return found.why if found.kind == "plugin" else None


def fabric(node: NodeFacts) -> tuple[Port, ...]:
    """The ports between nodes: those that NCCL_IB_HCA takes, else the fast ones of one link layer."""
    env = effective_env(node)
    if hca.HCA in env:
        taken = {item.key for item in hca.ports(node.rdma.devices or (), nccl_version(node), env) if item.taken}
        return tuple(port for port in ports(node) if (port.device.name, port.port.number) in taken)
    up = active(node)
    layers = {port.port.link_layer for port in up}
    best = max(layers, key=lambda layer: sum(_rate(port) for port in up if port.port.link_layer == layer), default=None)
    mine = [port for port in up if port.port.link_layer == best]
    fastest = max((_rate(port) for port in mine), default=0.0)
    return tuple(port for port in mine if _rate(port) >= fastest * SLOWEST)


def _rate(port: Port) -> float:
    return port.port.rate_gbps or 0.0


def hca_setting(chosen: tuple[Port, ...]) -> str:
    """The line for .env that names exactly these ports' devices."""
    return "NCCL_IB_HCA==" + ",".join(dict.fromkeys(port.device.name for port in chosen))


def roce_ports(node: NodeFacts) -> tuple[Port, ...]:
    """The Ethernet ports of the fabric; none where most of its ports are InfiniBand."""
    mine = fabric(node)
    ethernet = tuple(port for port in mine if port.is_ethernet)
    return ethernet if 2 * len(ethernet) >= len(mine) else ()


def without_roce(node: NodeFacts) -> Verdict | None:
    """Why RoCE cannot be judged here; None where the fabric is Ethernet."""
    if (none := without_rdma(node)) is not None:
        return none
    if roce_ports(node):
        return None
    if fabric(node):
        return skip("the fabric is InfiniBand")
    if all(port.link_layer is None for device in node.rdma.devices or () for port in device.ports):
        return unknown("ports/*/link_layer was not read")
    return skip("no ACTIVE RoCE port")


def interfaces(node: NodeFacts) -> tuple[Netdev, ...]:
    """The interfaces of the fabric's Ethernet ports, each once."""
    found = [netdev for port in roce_ports(node) if (netdev := netdev_of(node, port))]
    return tuple({item.name: item for item in found}.values())


def addresses(node: NodeFacts, netdev: Netdev) -> list[tuple[Netdev, Address]]:
    """IPv4 addresses of an interface, its bond and its VLANs."""
    return [(item, address) for item in above(node, netdev) for address in item.ipv4]


def without_interfaces(node: NodeFacts) -> Verdict | None:
    """Why the fabric's interfaces cannot be judged here; None where there are some."""
    if (none := without_roce(node)) is not None:
        return none
    return None if interfaces(node) else unknown("the interfaces of the fabric's ports were not read")


def give_address(node: NodeFacts, port: Port) -> str:
    """The command that gives a port's interface an address."""
    netdev = netdev_of(node, port)
    name = netdev.name if netdev else (port.device.netdevs or ("<interface>",))[0]
    return f"sudo ip addr add 192.168.100.X/24 dev {name}  # the fabric's subnet; keep it with netplan or nmcli"
