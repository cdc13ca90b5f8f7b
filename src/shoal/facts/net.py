"""Network interfaces, addresses, routes and neighbours. None is "not known" in every field."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Address:
    """One address of an interface, with its prefix length."""

    ip: str
    prefix: int
    scope: str = "global"

    @property
    def interface(self) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
        """The address with its network."""
        return ipaddress.ip_interface(f"{self.ip}/{self.prefix}")

    @property
    def network(self) -> str:
        """Its subnet, such as 192.168.100.0/24."""
        return str(self.interface.network)

    @property
    def is_ipv4(self) -> bool:
        """Whether it is IPv4."""
        return self.interface.version == 4


@dataclass(frozen=True)
class Qos:
    """RoCE's quality of service on an interface."""

    trust: str | None = None  # pcp or dscp
    pfc: tuple[bool, ...] | None = None  # by priority, 8 of them
    ecn_np: tuple[bool, ...] | None = None  # notification point, by priority
    ecn_rp: tuple[bool, ...] | None = None  # reaction point, by priority
    dcbx: str | None = None  # os or firmware


@dataclass(frozen=True)
class Netdev:
    """One interface. ``speed_mbps`` in Mb/s; ``kind`` is ``physical``, ``bond``, ``vlan``, ``bridge``, ``loopback``,
    ``wlan``, ``virtual`` or ``infiniband``; ``addresses`` None where nobody asked."""

    name: str
    index: int | None = None
    operstate: str | None = None
    carrier: bool | None = None
    running: bool | None = None  # IFF_RUNNING
    up: bool | None = None  # IFF_UP
    mtu: int | None = None
    speed_mbps: int | None = None
    duplex: str | None = None
    mac: str | None = None
    kind: str | None = None
    pci: str | None = None
    dev_port: int | None = None
    driver: str | None = None
    master: str | None = None
    lower: tuple[str, ...] = ()  # the interfaces below a bond, bridge or VLAN
    vlan_id: int | None = None
    bond_mode: str | None = None
    is_vf: bool | None = None
    addresses: tuple[Address, ...] | None = None
    carrier_changes: int | None = None
    statistics: Mapping[str, int] = field(default_factory=dict)
    ethtool: Mapping[str, int] = field(default_factory=dict)  # `ethtool -S`: rx_prio3_pause, rx_discards_phy, ...
    fec: str | None = None
    qos: Qos = field(default_factory=Qos)
    rp_filter: int | None = None
    arp_ignore: int | None = None
    arp_announce: int | None = None

    @property
    def ipv4(self) -> tuple[Address, ...]:
        """Its IPv4 addresses; empty where it has none or they are not known."""
        return tuple(item for item in self.addresses or () if item.is_ipv4)


@dataclass(frozen=True)
class Route:
    """One route of the main table; ``destination`` is ``default`` or a network."""

    destination: str
    device: str
    gateway: str | None = None
    source: str | None = None
    metric: int | None = None


@dataclass(frozen=True)
class NetFacts:
    """All of a node. ``netdevs`` is None where nobody looked."""

    netdevs: tuple[Netdev, ...] | None = None
    routes: tuple[Route, ...] | None = None
    rp_filter_all: int | None = None
    arp_ignore_all: int | None = None
    arp_announce_all: int | None = None
    port_range: tuple[int, int] | None = None  # ip_local_port_range
    firewall: str | None = None  # rules as nft or iptables print them
    listening: tuple[tuple[str, int], ...] | None = None  # TCP sockets that listen: address, port
    neighbours: tuple[tuple[str, str, str], ...] | None = None  # IP, device, MAC

    def netdev(self, name: str | None) -> Netdev | None:
        """The interface of that name."""
        return next((item for item in self.netdevs or () if item.name == name), None)

    def holding(self, ip: str) -> Netdev | None:
        """The interface that has this address."""
        return next((dev for dev in self.netdevs or () for item in dev.addresses or () if item.ip == ip), None)
