"""RoCE: the interfaces of the fabric with their addresses and routes."""

import ipaddress
from collections import Counter

from shoal.checks.base import Check, Severity, Verdict, check, fail, ok, skip, unknown, warn, worst
from shoal.checks.fabric import (
    addresses,
    fabric,
    give_address,
    interfaces,
    roce_ports,
    without_interfaces,
    without_roce,
)
from shoal.checks.views import listed, netdev_of, ports
from shoal.facts.net import Address, Netdev
from shoal.facts.node import NodeFacts

NEEDS = ("rdma", "net", "env", "stack")


def _yes(value: bool | None) -> str:
    return "?" if value is None else "yes" if value else "no"


@check("roce.interface-known", "each port's interface is known", severity=Severity.WARNING, needs=NEEDS)
def interface_known(node: NodeFacts) -> Verdict:
    """Addresses, MTU and flow control belong to interfaces. Without knowing which is a port's, nothing is proven."""
    if (none := without_roce(node)) is not None:
        return none
    if node.net.netdevs is None:
        return unknown("interfaces were not read")
    pairs = {port.label: netdev_of(node, port) for port in roce_ports(node)}
    lost = [label for label, netdev in pairs.items() if netdev is None]
    if lost:
        return warn(f"no interface found for {listed(lost)}", "rdma link show  # in a container: network_mode: host")
    return ok(listed(f"{label} {netdev.name}" for label, netdev in pairs.items() if netdev))


@check("roce.interface-up", "the fabric's interfaces are up and have a carrier", severity=Severity.FATAL, needs=NEEDS)
def interface_up(node: NodeFacts) -> Verdict:
    """RoCE sends through its interface's addresses and routes, which the kernel takes away while it is down.

    An interface that somebody set down takes its port down as well, and then it is this that is to be mended.
    """
    if (set_down := _set_down(node)) is not None:
        return set_down
    if (none := without_interfaces(node)) is not None:
        return none

    def judge(netdev: Netdev) -> Verdict:
        if netdev.up is False or netdev.operstate == "down" or netdev.carrier is False or netdev.running is False:
            said = f"{netdev.name}: operstate {netdev.operstate or '?'}, carrier {_yes(netdev.carrier)}"
            return fail(said, f"sudo ip link set {netdev.name} up  # no carrier? cable or switch port")
        if netdev.operstate is None and netdev.carrier is None:
            return unknown(f"{netdev.name}: operstate and carrier were not read")
        return ok(f"{netdev.name} {netdev.operstate or 'has a carrier'}")

    return worst(judge(netdev) for netdev in interfaces(node))


def _set_down(node: NodeFacts) -> Verdict | None:
    """The interface that is set down, where no port is ACTIVE. One that is up lacks a carrier: its port tells that."""
    if fabric(node):
        return None
    found = (netdev_of(node, port) for port in ports(node) if port.is_ethernet)
    down = next((netdev for netdev in found if netdev and netdev.up is False), None)
    if down is None:
        return None
    return fail(f"{down.name} is set down, and its RDMA port with it", f"sudo ip link set {down.name} up")


@check("roce.ipv4", "the fabric's interfaces have an IPv4 address", severity=Severity.FATAL, needs=NEEDS)
def ipv4(node: NodeFacts) -> Verdict:
    """The kernel makes a RoCE GID of each address. Without one there is no GID that NCCL takes.

    It is fatal where no interface of the fabric has one; roce.gid-on-every-port names single ones without.
    """
    if (none := without_interfaces(node)) is not None:
        return none
    mine = interfaces(node)
    if any(netdev.addresses is None for netdev in mine):
        return unknown("addresses were not read: ip -j addr show")
    have = [
        f"{item.name} {address.ip}/{address.prefix}" for netdev in mine for item, address in addresses(node, netdev)
    ]
    if have:
        return ok(listed(have))
    return fail(f"none on {listed(netdev.name for netdev in mine)}", give_address(node, roce_ports(node)[0]))


@check(
    "roce.own-subnets", "each interface of the fabric has a subnet of its own", severity=Severity.WARNING, needs=NEEDS
)
def own_subnets(node: NodeFacts) -> Verdict:
    """With two interfaces in one subnet the kernel answers ARP on either and sends everything through one.

    Peers then learn the wrong hardware address. arp_ignore=1 and arp_announce=2 mend the first half.
    """
    if (none := without_interfaces(node)) is not None:
        return none
    held: dict[str, dict[str, Netdev]] = {}
    for netdev in interfaces(node):
        for item, address in addresses(node, netdev):
            held.setdefault(address.network, {})[item.name] = item
    shared = {network: list(items.values()) for network, items in held.items() if len(items) > 1}
    if not held:
        return unknown("no IPv4 address was read: see roce.ipv4")
    loose = {net: items for net, items in shared.items() if not all(_arp_is_strict(node, item) for item in items)}
    if loose:
        said = "; ".join(f"{listed(item.name for item in items)} in {net}" for net, items in loose.items())
        name = next(iter(loose.values()))[0].name
        return warn(said, f"sudo sysctl -w net.ipv4.conf.{name}.arp_ignore=1 net.ipv4.conf.{name}.arp_announce=2")
    return ok(listed(held))


def _arp_is_strict(node: NodeFacts, netdev: Netdev) -> bool:
    """Whether it answers ARP for its own addresses only. The kernel takes the larger of "all" and its own."""
    ignore = max(node.net.arp_ignore_all or 0, netdev.arp_ignore or 0)
    announce = max(node.net.arp_announce_all or 0, netdev.arp_announce or 0)
    return ignore >= 1 and announce >= 2


@check("roce.address-once", "no address is on two interfaces of the node", severity=Severity.FATAL, needs=NEEDS)
def address_once(node: NodeFacts) -> Verdict:
    """The same address twice makes two GIDs of one name; peers reach one interface and the other's traffic is lost."""
    if (none := without_interfaces(node)) is not None:
        return none
    mine = {address.ip for netdev in interfaces(node) for _, address in addresses(node, netdev)}
    held = Counter(address.ip for netdev in node.net.netdevs or () for address in netdev.ipv4)
    if not mine:
        return unknown("no IPv4 address was read: see roce.ipv4")
    twice = sorted(ip for ip in mine if held[ip] > 1)
    if twice:
        names = [item.name for item in node.net.netdevs or () for address in item.ipv4 if address.ip in twice]
        return fail(f"{listed(twice)} on {listed(names)}", f"sudo ip addr del {twice[0]} dev {names[-1]}")
    return ok(listed(sorted(mine)))


@check("roce.own-route", "each subnet of the fabric is reached through its own interface", needs=NEEDS)
def own_route(node: NodeFacts) -> Verdict:
    """Queue pairs are set up over the kernel's route to the peer's address. A VPN or a bridge that claims the subnet
    takes the traffic away from the card, and the connection fails with "no route to host" or a time-out."""
    if (none := without_interfaces(node)) is not None:
        return none
    if node.net.routes is None:
        return unknown("routes were not read: ip -j route show")
    pairs = [pair for netdev in interfaces(node) for pair in addresses(node, netdev)]
    return worst(_route(node, *pair) for pair in pairs) if pairs else unknown("no IPv4 address was read")


def _route(node: NodeFacts, netdev: Netdev, address: Address) -> Verdict:
    """Judge the route to an address's subnet."""
    if address.prefix >= 31:
        return skip(f"{netdev.name} {address.ip}/{address.prefix} has no subnet")
    routes = [item for item in node.net.routes or () if item.destination == address.network]
    through = [item for item in routes if item.device == netdev.name]
    if not through:
        there = listed(f"{item.destination} dev {item.device}" for item in routes) or "none"
        mend = f"sudo ip route add {address.network} dev {netdev.name} src {address.ip}"
        return fail(f"{address.network}: no route through {netdev.name}; routes: {there}", mend)
    narrower = [
        item for item in node.net.routes or () if _inside(item.destination, address) and item.device != netdev.name
    ]
    if narrower:
        said = f"{listed(f'{item.destination} dev {item.device}' for item in narrower)} inside {address.network}"
        return fail(said, f"sudo ip route del {narrower[0].destination} dev {narrower[0].device}")
    return ok(f"{address.network} dev {netdev.name}")


def _inside(destination: str, address: Address) -> bool:
    """Whether a route is for a real part of the address's subnet."""
    try:
        network = ipaddress.ip_network(destination)
        whole = ipaddress.ip_network(address.network)
    except ValueError:
        return False
    same_kind = isinstance(network, ipaddress.IPv4Network) and isinstance(whole, ipaddress.IPv4Network)
    return same_kind and whole.prefixlen < network.prefixlen < 32 and network.subnet_of(whole)  # type: ignore[arg-type]


CHECKS: tuple[Check[NodeFacts], ...] = (
    interface_known,
    interface_up,
    ipv4,
    own_subnets,
    address_once,
    own_route,
)
