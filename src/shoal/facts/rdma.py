"""RDMA devices, ports and GID tables, as the kernel lists them in ``/sys/class/infiniband``.

None is "not known" in every field. Formats: Documentation/ABI/stable/sysfs-class-infiniband of the Linux kernel.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from shoal.host.base import Host

CLASS = "/sys/class/infiniband"
ROCE_V1, ROCE_V2 = "IB/RoCE v1", "RoCE v2"
ETHERNET, INFINIBAND = "Ethernet", "InfiniBand"


@dataclass(frozen=True)
class Gid:
    """One slot of a port's GID table.

    ``gid`` is the 16 bytes as eight groups of four hex digits; ``type`` is ``RoCE v2`` or ``IB/RoCE v1``; ``ndev`` the
    interface it belongs to; ``error`` the errno name where type or ndev could not be read (EINVAL: the slot is empty,
    or belongs to another network namespace).
    """

    index: int
    gid: str
    type: str | None = None
    ndev: str | None = None
    error: str = ""

    @cached_property
    def address(self) -> ipaddress.IPv6Address | None:
        """The GID as an IPv6 address; None where its text is none."""
        try:
            return ipaddress.IPv6Address(self.gid.strip())
        except ValueError:
            return None

    @property
    def ipv4(self) -> str | None:
        """The IPv4 address that the GID maps (``::ffff:a.b.c.d``); None for other GIDs."""
        mapped = self.address.ipv4_mapped if self.address else None
        return str(mapped) if mapped else None

    @property
    def is_zero(self) -> bool:
        """Whether the slot is empty."""
        return self.address is None or int(self.address) == 0

    @property
    def is_link_local(self) -> bool:
        """Whether it is fe80::/64: of one cable only."""
        return self.address is not None and self.address.is_link_local


@dataclass(frozen=True)
class RdmaPort:
    """One port. ``rate_gbps`` in Gb/s; ``active_mtu`` in bytes; counters as the kernel names them, None for ``N/A``.

    ``counters`` and ``hw_counters`` are None where the folder is not known, empty where the driver has none.
    ``port_xmit_data`` and ``port_rcv_data`` count 4-byte words.
    """

    number: int
    state: str | None = None  # DOWN INIT ARMED ACTIVE ACTIVE_DEFER NOP
    phys_state: str | None = None  # Sleep Polling Disabled PortConfigurationTraining LinkUp LinkErrorRecovery Phy Test
    link_layer: str | None = None
    rate_gbps: float | None = None
    rate_text: str = ""
    lid: int | None = None
    sm_lid: int | None = None
    active_mtu: int | None = None
    gids: tuple[Gid, ...] | None = None
    counters: Mapping[str, int | None] | None = None
    hw_counters: Mapping[str, int | None] | None = None

    @property
    def is_active(self) -> bool | None:
        """Whether the port is ACTIVE; None where its state is not known."""
        return None if self.state is None else self.state == "ACTIVE"


@dataclass(frozen=True)
class RdmaDevice:
    """One HCA. ``pci`` is the address ``0000:01:00.0``; ``netdevs`` the interfaces of its PCI function."""

    name: str
    ports: tuple[RdmaPort, ...] = ()
    pci: str | None = None
    netdevs: tuple[str, ...] | None = None
    driver: str | None = None
    vendor: str | None = None  # PCI vendor id, such as 0x15b3
    fw_ver: str | None = None
    board_id: str | None = None
    hca_type: str | None = None
    node_guid: str | None = None
    sys_image_guid: str | None = None
    numa_node: int | None = None
    is_vf: bool | None = None
    physfn: str | None = None
    link_speed: str | None = None  # PCIe, as in current_link_speed: "32.0 GT/s PCIe"
    link_width: int | None = None
    max_link_speed: str | None = None
    max_link_width: int | None = None
    iommu_group: str | None = None
    uverbs: str | None = None  # uverbs0, from /sys/class/infiniband_verbs
    umad: str | None = None


@dataclass(frozen=True)
class RdmaFacts:
    """All of a node. ``devices`` is None where nobody looked, empty where the kernel has none."""

    devices: tuple[RdmaDevice, ...] | None = None
    nodes: tuple[str, ...] | None = None  # names in /dev/infiniband
    unopenable: Mapping[str, str] = field(default_factory=dict)  # of those: errno name where opening it failed
    netns_mode: str | None = None  # shared or exclusive, from `rdma system`
    cards: Mapping[str, str] = field(default_factory=dict)  # PCI address -> vendor id of every network controller
    card_drivers: Mapping[str, str] = field(default_factory=dict)  # PCI address -> kernel driver bound to it

    def device(self, name: str) -> RdmaDevice | None:
        """The device of that name."""
        return next((item for item in self.devices or () if item.name == name), None)


@dataclass(frozen=True)
class Hca:
    """One RDMA device in three words, for the agent's log."""

    device: str
    state: str
    link_layer: str


def read(host: Host) -> tuple[Hca, ...]:
    """The machine's RDMA devices with the state of port 1; empty where the kernel has none."""
    out = []
    for device in host.list(CLASS):
        state = host.read(f"{CLASS}/{device}/ports/1/state") or "unknown"
        layer = host.read(f"{CLASS}/{device}/ports/1/link_layer") or "unknown"
        out.append(Hca(device, state.partition(":")[2].strip() or state.strip(), layer.strip()))
    return tuple(out)
