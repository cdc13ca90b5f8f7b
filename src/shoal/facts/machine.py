"""Kernel, limits, memory, clock, modules, PCI and names of a machine. None is "not known" in every field."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limit:
    """A resource limit; None is "unlimited"."""

    soft: int | None
    hard: int | None


@dataclass(frozen=True)
class Disk:
    """A file system that models, caches or Ray would use. Sizes in bytes."""

    path: str
    total: int
    free: int
    kind: str = ""


@dataclass(frozen=True)
class PciBridge:
    """ACS of a PCI bridge: which redirect bits are on (``SrcValid``, ``ReqRedir``, ...), from `lspci -vvv` as root."""

    address: str
    acs: tuple[str, ...]


@dataclass(frozen=True)
class Stuck:
    """A process in state D or Z."""

    pid: int
    name: str
    state: str


@dataclass(frozen=True)
class MachineFacts:
    """A machine's own settings. Memory in bytes, times in seconds."""

    hostname: str | None = None
    hostname_addresses: tuple[str, ...] | None = None  # what its own name resolves to
    machine_id: str | None = None
    os: str | None = None  # PRETTY_NAME of /etc/os-release
    kernel: str | None = None
    architecture: str | None = None
    cmdline: str | None = None
    product: str | None = None  # DMI product name: "NVIDIA DGX Spark"
    bios: str | None = None
    virtual: str | None = None  # the hypervisor; empty on bare metal
    uptime: float | None = None
    reboot_required: bool | None = None
    limits: Mapping[str, Limit] = field(default_factory=dict)  # by the kernel's words: "Max locked memory"
    memory: Mapping[str, int] = field(default_factory=dict)  # /proc/meminfo by name
    shm_total: int | None = None
    shm_free: int | None = None
    disks: tuple[Disk, ...] = ()
    cpus: int | None = None
    numa_nodes: int | None = None
    modules: tuple[str, ...] | None = None
    module_versions: Mapping[str, str] = field(default_factory=dict)
    ofed: str | None = None  # `ofed_info -s`; empty where the machine has the kernel's own drivers
    sysctls: Mapping[str, str] = field(default_factory=dict)  # by dotted name
    governor: str | None = None
    clocksource: str | None = None
    clock_synchronised: bool | None = None
    clock: float | None = None  # the machine's clock when it was read
    clock_offset: float | None = None  # machine minus reader, in seconds
    iommu: str | None = None  # identity, DMA or DMA-FQ; empty where there is none
    bridges: tuple[PciBridge, ...] | None = None
    kernel_log: tuple[str, ...] | None = None
    stuck: tuple[Stuck, ...] | None = None
    transparent_hugepages: str | None = None
    default_route_wireless: bool | None = None
    selinux: str | None = None
