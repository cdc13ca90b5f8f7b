"""What each port of a node is worth: read off the facts, with the reason where it cannot carry the fabric's traffic."""

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from shoal.facts.net import Netdev, NetFacts
from shoal.facts.node import NodeFacts
from shoal.facts.rdma import ETHERNET, INFINIBAND, Gid, RdmaDevice, RdmaPort
from shoal.nccl import gid, hca
from shoal.nccl.environment import effective
from shoal.nccl.gid import Choice
from shoal.nccl.network import Network, network
from shoal.nccl.socket import subnet_of
from shoal.nccl.variables import Version
from shoal.plan.fabric.types import HcaPort, Port

ASSUMED = {4: 24, 6: 64}


@dataclass(frozen=True)
class Slot:
    """A RoCE v2 slot that a peer can reach. ``subnet`` None where no prefix is known."""

    index: int
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    netdev: str | None
    subnet: str | None

    @property
    def reach(self) -> str:
        """The subnet; where it is not known, the usual one around the address."""
        length = ASSUMED[self.address.version]
        return self.subnet or str(ipaddress.ip_network(f"{self.address}/{length}", strict=False))


@dataclass(frozen=True)
class Seen:
    """A port with all that the plan needs of it. ``slots`` by the address family that is wanted, 4 or 6."""

    row: HcaPort
    device: RdmaDevice
    port: RdmaPort
    netdev: Netdev | None
    slots: Mapping[int, tuple[Slot, ...]]
    prefix: str = ""  # InfiniBand: the fabric's subnet prefix

    @property
    def key(self) -> Port:
        """Device and port number."""
        return self.device.name, self.port.number

    @property
    def usable(self) -> bool:
        """Whether it is known to be usable."""
        return self.row.usable is True

    @property
    def rate(self) -> float:
        """Its rate in Gb/s, 0 where it is not known."""
        return self.port.rate_gbps or 0.0

    def without(self, why: str) -> "Seen":
        """The same port, left out for this reason."""
        return replace(self, row=replace(self.row, usable=False, why=why))


@dataclass(frozen=True)
class Node:
    """A node with its environment as NCCL finds it, the network that NCCL would use, and its ports."""

    facts: NodeFacts
    env: Mapping[str, str]
    network: Network
    ports: tuple[Seen, ...]

    @property
    def usable(self) -> tuple[Seen, ...]:
        """The ports that the plan may use, in the order of their PCI addresses."""
        ports = [item for item in self.ports if item.usable]
        return tuple(sorted(ports, key=lambda seen: (seen.device.pci or "~", seen.key)))


def look(facts: NodeFacts, version: Version, *, drop: Sequence[str] = ()) -> Node:
    """The node as NCCL of this version would find it; ``drop`` names variables to leave aside."""
    env = {name: value for name, value in effective(facts.env, facts.stack.nccl_conf).items() if name not in drop}
    net = network(env, facts.stack.plugin)
    taken = hca.ports(facts.rdma.devices or (), version, env)
    return Node(facts, env, net, tuple(_see(item, facts, version, env, net) for item in taken))


def _see(item: hca.Taken, facts: NodeFacts, version: Version, env: Mapping[str, str], net: Network) -> Seen:
    device, port = item.device, item.port
    choice = _choice(port, version, env, net)
    used = next((slot for slot in port.gids or () if slot.index == choice.index), None)
    netdev = _netdev(device, port, used, facts.net)
    slots = {family: tuple(_slots(port, netdev, facts.net, family)) for family in (4, 6)}
    usable, why = _judge(item, facts, netdev, slots, choice, net)
    row = HcaPort(
        device=device.name,
        port=port.number,
        state=port.state,
        link_layer=port.link_layer,
        rate_gbps=port.rate_gbps,
        netdev=netdev.name if netdev else None,
        mtu=netdev.mtu if netdev else None,
        ipv4=_ipv4(used, netdev),
        gid_index=choice.index,
        gid_type=used.type if used else None,
        usable=usable,
        why=why,
    )
    return Seen(row, device, port, netdev, slots, _prefix(port))


def _choice(port: RdmaPort, version: Version, env: Mapping[str, str], net: Network) -> Choice:
    if net.kind != "plugin" or port.link_layer == INFINIBAND:
        return gid.choose(port.gids, port.link_layer, version, env)
    why = f"the network plugin chooses the slot, by rules that are not known ({net.why})"
    if gid.INDEX not in env:
        return Choice(None, why)
    # What is pinned, every known plugin uses as it is.
    pinned = gid.choose(port.gids, port.link_layer, version, env)
    return pinned if "used as it is" in pinned.why else Choice(None, why)


def _netdev(device: RdmaDevice, port: RdmaPort, used: Gid | None, net: NetFacts) -> Netdev | None:
    """The interface of the slot in use, else of the first slot that names one, else of the PCI function's port."""
    gids = port.gids or ()
    named = [used.ndev if used else None, *(slot.ndev for slot in gids)]
    if name := next(filter(None, named), None):
        return net.netdev(name) or Netdev(name)
    if used and used.ipv4 and (holder := net.holding(used.ipv4)):
        return holder
    found = [net.netdev(name) or Netdev(name) for name in device.netdevs or ()]
    if len(found) > 1:
        found = [dev for dev in found if dev.dev_port == port.number - 1]
    return found[0] if len(found) == 1 else None


def _ipv4(used: Gid | None, netdev: Netdev | None) -> str | None:
    if used and used.ipv4:
        return used.ipv4
    return netdev.ipv4[0].ip if netdev and netdev.ipv4 else None


def _prefix(port: RdmaPort) -> str:
    """The subnet prefix of an InfiniBand port: the upper half of slot 0."""
    first = next((slot for slot in port.gids or () if slot.index == 0 and slot.address), None)
    return first.address.packed[:8].hex() if first and first.address else "fe80000000000000"


def _slots(port: RdmaPort, netdev: Netdev | None, net: NetFacts, family: int) -> Iterator[Slot]:
    for slot in sorted(port.gids or (), key=lambda item: item.index):
        if slot.address is None or slot.is_zero or not (slot.type or "").startswith("RoCE v2"):
            continue
        address = ipaddress.IPv6Address(slot.address.packed)  # without a scope that its text may have had
        reached = address.ipv4_mapped or address
        if reached.version != family or reached.is_link_local or reached.is_loopback:
            continue
        name = slot.ndev or (netdev.name if netdev else None)
        yield Slot(slot.index, reached, name, _subnet(str(reached), name, net))


def _subnet(ip: str, name: str | None, net: NetFacts) -> str | None:
    address = ipaddress.ip_address(ip)
    own = net.netdev(name)
    for dev in [*([own] if own else []), *(net.netdevs or ())]:
        for item in dev.addresses or ():
            subnet = subnet_of(item)
            if subnet and item.ip == ip and subnet.prefixlen < subnet.max_prefixlen:
                return str(subnet)
    for route in net.routes or ():
        subnet = _network(route.destination) if route.gateway is None and route.device == name else None
        if subnet and subnet.version == address.version and address in subnet:
            return str(subnet)
    return None


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _judge(
    item: hca.Taken,
    facts: NodeFacts,
    netdev: Netdev | None,
    slots: Mapping[int, tuple[Slot, ...]],
    choice: Choice,
    net: Network,
) -> tuple[bool | None, str]:
    """Whether the port can carry the fabric's traffic, and why; None where that is not known."""
    if net.kind == "socket":
        return False, f"{net.why}: NCCL uses sockets"
    if item.taken is False:
        return False, item.why
    trouble = _trouble(item, facts, netdev)
    if not trouble and item.port.link_layer == ETHERNET:
        trouble = _roce_trouble(item.port, netdev, slots)
    if trouble:
        return False, trouble
    if item.taken is None or item.port.link_layer is None:
        return None, item.why or "the link layer is not known"
    if item.port.link_layer == ETHERNET and not (slots[4] or slots[6]):
        return None, choice.why
    return True, choice.why


def _trouble(item: hca.Taken, facts: NodeFacts, netdev: Netdev | None) -> str:
    port, verbs = item.port, item.device.uverbs
    if port.phys_state not in {None, "LinkUp"}:
        return f"the link is {port.phys_state}"
    if verbs and verbs in facts.rdma.unopenable:
        return f"/dev/infiniband/{verbs} cannot be opened ({facts.rdma.unopenable[verbs]})"
    if verbs and facts.rdma.nodes is not None and verbs not in facts.rdma.nodes:
        return f"/dev/infiniband/{verbs} is not there: NCCL cannot open the device"
    if port.link_layer == INFINIBAND and port.lid == 0:
        return "no LID: no subnet manager has configured the port"
    if port.link_layer == ETHERNET and netdev and (netdev.up is False or netdev.carrier is False):
        return f"{netdev.name} is " + ("down" if netdev.up is False else "without carrier")
    if port.link_layer == ETHERNET and netdev and netdev.operstate in {"down", "lowerlayerdown", "notpresent"}:
        return f"{netdev.name} is {netdev.operstate}"
    return ""


def _roce_trouble(port: RdmaPort, netdev: Netdev | None, slots: Mapping[int, tuple[Slot, ...]]) -> str:
    """Why no peer can reach the port by RoCE v2; empty where one can, or where nobody read the table."""
    if port.gids is None or slots[4] or slots[6]:
        return ""
    filled = [slot for slot in port.gids if not slot.is_zero]
    where = netdev.name if netdev else "its interface"
    if all(slot.type is None and not slot.error for slot in filled) and filled:
        return ""
    if any(slot.ipv4 and (slot.type or "").endswith("v1") for slot in filled):
        return "only RoCE v1: no slot of type RoCE v2 holds an address"
    if any(slot.ipv4 for slot in filled):
        return "the slots with an address belong to another network namespace"
    return f"no IPv4 address, so only link-local GIDs: give {where} one"
