"""Which interface NCCL's sockets and its bootstrap use: ``NCCL_SOCKET_IFNAME``, or NCCL's own order.

Read in 2.22.3, 2.26.2, 2.27.3 and 2.30.7. That an interface must be running, and that virbr comes last, is in the last
of these only; it is taken for 2.28 and newer here.
"""

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from shoal.facts.net import Address, Netdev, NetFacts
from shoal.nccl.lists import NameList, parse
from shoal.nccl.variables import Version

IFNAME, FAMILY, COMM_ID = "NCCL_SOCKET_IFNAME", "NCCL_SOCKET_FAMILY", "NCCL_COMM_ID"
LIMIT = 16
RUNNING_SINCE: Version = (2, 28)


@dataclass(frozen=True)
class Interface:
    """The interface and address that NCCL listens on; ``name`` None where none fits or it is not known."""

    name: str | None
    address: str | None
    why: str


def choose(net: NetFacts, version: Version, env: Mapping[str, str]) -> Interface:
    """The interface of NCCL's bootstrap on this node."""
    if net.netdevs is None or all(dev.addresses is None for dev in net.netdevs):
        return Interface(None, None, "the interfaces' addresses are not known")
    found = list(_addresses(net, version, env))
    asked = env.get(IFNAME, "")
    if len(asked) > 1:
        return _first(found, parse(asked, version, LIMIT), f"{IFNAME}={asked}") or Interface(
            None, None, f"{IFNAME}={asked} matches no interface that has an address: NCCL ends with an error"
        )
    return _own_choice(found, version, env)


def _own_choice(found: list[tuple[Netdev, Address]], version: Version, env: Mapping[str, str]) -> Interface:
    if chosen := _first(found, parse("ib", version, LIMIT), "NCCL looks for ib* first"):
        return chosen
    if chosen := _near(found, env.get(COMM_ID, "")):
        return chosen
    last = ("docker", "lo", "virbr") if version >= RUNNING_SINCE else ("docker", "lo")
    if chosen := _first(found, parse("^" + ",".join(last), version, LIMIT), f"the first that is not {', '.join(last)}"):
        return chosen
    for name in last:
        if chosen := _first(found, parse(name, version, LIMIT), f"nothing else is there but {name}*"):
            return chosen
    return Interface(None, None, "no interface has an address")


def _addresses(net: NetFacts, version: Version, env: Mapping[str, str]) -> Iterator[tuple[Netdev, Address]]:
    """Interfaces with addresses in the order of ``getifaddrs``: IPv4 by interface, then IPv6."""
    family = {"AF_INET": 4, "AF_INET6": 6}.get(env.get(FAMILY, ""))
    devices = sorted(net.netdevs or (), key=lambda dev: (dev.index is None, dev.index or 0))
    for wanted in (4, 6):
        for dev in devices:
            if dev.running is False and version >= RUNNING_SINCE:
                continue
            for address in dev.addresses or ():
                network = subnet_of(address)
                if network and network.version == wanted == (family or wanted) and address.ip != "::1":
                    yield dev, address


def subnet_of(address: Address) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """The address's network; None where it is no address."""
    try:
        return ipaddress.ip_interface(f"{address.ip.partition('%')[0]}/{address.prefix}").network
    except ValueError:
        return None


def _first(found: list[tuple[Netdev, Address]], names: NameList, why: str) -> Interface | None:
    return next((Interface(dev.name, address.ip, why) for dev, address in found if names.takes(dev.name)), None)


def _near(found: list[tuple[Netdev, Address]], comm_id: str) -> Interface | None:
    """The interface in the subnet of ``NCCL_COMM_ID``; none where that is no numeric address."""
    host = comm_id[1:].partition("]")[0] if comm_id.startswith("[") else comm_id.partition(":")[0]
    try:
        root = ipaddress.ip_address(host)
    except ValueError:
        return None
    for dev, address in found:
        network = subnet_of(address)
        if network and network.version == root.version and root in network:
            return Interface(dev.name, address.ip, f"in the subnet of {COMM_ID}={comm_id}")
    return None
