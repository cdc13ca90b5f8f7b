"""Bytes that an HCA's port has carried, out of the kernel's counters, and what moved between two looks. Pure.

``counters/port_xmit_data`` and ``port_rcv_data`` count words of 4 bytes. Soft-RoCE (rxe) has no ``counters`` folder:
its ``hw_counters/sent_pkts`` times the active MTU is an estimate, and an upper bound: acknowledgements are packets too.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import Field

from shoal.facts.net import NetFacts
from shoal.facts.rdma import INFINIBAND, RdmaDevice, RdmaFacts, RdmaPort
from shoal.host.gather import Request
from shoal.nccl import hca
from shoal.nccl.environment import effective, integer
from shoal.nccl.hca import DISABLE
from shoal.nccl.network import NET
from shoal.nccl.variables import Version
from shoal.state.status import Document

_PORT = "/sys/class/infiniband/*/ports/*"
# What is read for one look: no program is started, and of the long GID tables only the first slots are needed.
REQUEST = Request(
    files=(
        *(f"{_PORT}/{name}" for name in ("state", "link_layer", "counters/port_*_data")),
        *(f"{_PORT}/hw_counters/{name}" for name in ("sent_pkts", "rcvd_pkts")),
        *(f"{_PORT}/{name}/[0-3]" for name in ("gids", "gid_attrs/types", "gid_attrs/ndevs")),
        *("/proc/net/route", "/proc/net/fib_trie", "/sys/class/net/*/mtu"),
    ),
    names=("/sys/class/infiniband/*/device/net/*", "/sys/class/infiniband/*/device/driver"),
    deadline=5,
)
WORD = 4
MTUS = (4096, 2048, 1024, 512, 256)
RXE_HEADERS = 80  # rxe leaves room for its longest headers before it chooses the MTU
WIDTH = 1 << 64
STUCK = (1 << 32) - 1  # a counter of 32 bits stops there


class Port(Document):
    """One port of an HCA: its counters, and whether NCCL is to use it."""

    hca: str
    port: int = 1
    layer: str = ""
    rail: str = Field("", description="the subnet it is on")
    active: bool | None = None
    planned: bool = False
    unit: int = Field(WORD, description="bytes for each count")
    estimate: bool = Field(default=False, description="counts are packets: bytes are at most this many")
    sent: int | None = None
    received: int | None = None

    @property
    def name(self) -> str:
        """How it is called: the port's number is told where it is not the first."""
        return self.hca if self.port == 1 else f"{self.hca}:{self.port}"


class Process(Document):
    """What one process told of its NCCL, from its own log file."""

    file: str
    pid: int
    alive: bool
    rank: int | None = None
    ranks: int = 0
    nodes: int = 0
    version: str = ""
    network: str = ""
    rdma: bool | None = None
    gdr: bool | None = None
    hcas: tuple[str, ...] = ()
    transports: dict[str, int] = Field(default_factory=dict)
    complete: bool = False
    last: str = Field("", description="the last line that was written")
    quiet_s: float | None = Field(None, description="seconds since something was written")


class NodeProof(Document):
    """What a node knows of its RDMA traffic at one moment: the answer of an agent at ``/proof``."""

    name: str
    address: str
    taken: float = Field(0.0, description="seconds of the node's own clock")
    nccl: str | None = Field(None, description="NCCL's version; None where no package says it")
    cpu: bool = Field(default=False, description="vLLM is a CPU build, whose ranks use Gloo and not NCCL")
    disabled: str = Field("", description="the setting by which somebody turned RDMA off; empty where nobody did")
    ports: tuple[Port, ...] = ()
    processes: tuple[Process, ...] = ()

    @property
    def planned(self) -> tuple[Port, ...]:
        """The ports that NCCL is to use."""
        return tuple(port for port in self.ports if port.planned)


@dataclass(frozen=True)
class Moved:
    """Bytes between two looks; ``at_least``: the counter was reset or stopped, and some may be missing."""

    bytes: int | None
    at_least: bool = False


def moved(before: int | None, after: int | None) -> Moved:
    """The counts between two readings of one counter.

    One that is lower than before has wrapped, where it was in the upper half of its 64 bits; else it was reset, and
    what it shows now came since then. One that stands at the end of 32 bits says nothing any more.
    """
    if before is None or after is None or before == after == STUCK:
        return Moved(None)
    if after >= before:
        return Moved(after - before, at_least=after == STUCK)
    if before >= WIDTH // 2:
        return Moved((after - before) % WIDTH)
    return Moved(after, at_least=True)


def between(before: Port | None, after: Port) -> tuple[Moved, Moved]:
    """Bytes sent and received by a port; of one that was not there before nothing is known."""
    if before is None or before.unit != after.unit:
        return Moved(None), Moved(None)
    pairs = (before.sent, after.sent), (before.received, after.received)
    sent, received = (_scaled(moved(*pair), after.unit) for pair in pairs)
    return sent, received


def _scaled(counts: Moved, unit: int) -> Moved:
    return counts if counts.bytes is None else Moved(counts.bytes * unit, counts.at_least)


def turned_off(env: Mapping[str, str]) -> str:
    """The setting by which somebody has turned RDMA off for NCCL; empty where nobody has."""
    told = effective(env)
    if integer(told.get(DISABLE), 0):
        return f"{DISABLE}={told[DISABLE]}"
    return f"{NET}={told[NET]}" if told.get(NET, "").lower() == "socket" else ""


def ports(rdma: RdmaFacts, net: NetFacts, env: Mapping[str, str], version: Version) -> tuple[Port, ...]:
    """Every port of a node with its counters. Planned is what NCCL takes: ACTIVE, and not left out by NCCL_IB_HCA."""
    off = bool(turned_off(env))
    return tuple(
        _port(item.device, item.port, net, planned=item.taken is True and not off)
        for item in hca.ports(rdma.devices or (), version, effective(env))
    )


def _port(device: RdmaDevice, port: RdmaPort, net: NetFacts, *, planned: bool) -> Port:
    unit, sent, received = counts(device, port, net)
    return Port(
        hca=device.name,
        port=port.number,
        layer=port.link_layer or "",
        rail=_rail(device, port, net),
        active=port.is_active,
        planned=planned,
        unit=unit,
        estimate=unit != WORD,
        sent=sent,
        received=received,
    )


def counts(device: RdmaDevice, port: RdmaPort, net: NetFacts) -> tuple[int, int | None, int | None]:
    """Bytes for each count, and the two counters: sent and received."""
    mtu = _mtu(device, port, net)
    known, hardware = port.counters or {}, port.hw_counters or {}
    data = known.get("port_xmit_data"), known.get("port_rcv_data")
    packets = hardware.get("sent_pkts"), hardware.get("rcvd_pkts")
    if data == (None, None) and packets != (None, None) and mtu is not None:
        return mtu, *packets
    return WORD, *data


def _mtu(device: RdmaDevice, port: RdmaPort, net: NetFacts) -> int | None:
    if port.active_mtu is not None:
        return port.active_mtu
    sizes = [dev.mtu for name in device.netdevs or () if (dev := net.netdev(name)) and dev.mtu]
    room = max(sizes, default=0) - RXE_HEADERS
    return next((mtu for mtu in MTUS if mtu <= room), None)


def _rail(device: RdmaDevice, port: RdmaPort, net: NetFacts) -> str:
    gids = [gid for gid in port.gids or () if not gid.is_zero]
    if port.link_layer == INFINIBAND:
        return f"InfiniBand {gids[0].gid[:19]}" if gids else ""
    names = dict.fromkeys([*(gid.ndev for gid in gids if gid.ndev), *(device.netdevs or ())])
    found = [dev.ipv4[0].network for name in names if (dev := net.netdev(name)) and dev.ipv4]
    return found[0] if found else ""
