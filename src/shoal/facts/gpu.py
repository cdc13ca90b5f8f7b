"""GPUs, as ``nvidia-smi`` reports them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from shoal.errors import CommandFailed
from shoal.host.base import Host

QUERY = ("nvidia-smi", "--query-gpu=index,name,memory.total", "--format=csv,noheader,nounits")


NAMED = re.compile(r"\d+|GPU-[0-9a-fA-F-]+", re.ASCII)


@dataclass(frozen=True)
class NvLink:
    """One NVLink of a GPU. ``gbps`` is GB/s as the driver says; an inactive link has None."""

    index: int
    active: bool
    gbps: float | None = None
    errors: int | None = None  # replay, recovery and CRC errors together


@dataclass(frozen=True)
class Gpu:
    """One GPU; memory in MiB, None where the driver does not say (unified memory). None is "not known" everywhere."""

    index: int
    name: str
    memory_mib: int | None
    used_mib: int | None = None
    bar1_mib: int | None = None
    uuid: str | None = None
    pci: str | None = None  # 0000:18:00.0
    architecture: str | None = None
    persistence: bool | None = None
    compute_mode: str | None = None
    mig: bool | None = None
    ecc_uncorrected: int | None = None  # volatile, DRAM and SRAM together
    ecc_corrected: int | None = None
    remap_pending: bool | None = None
    remap_failure: bool | None = None
    temperature_c: int | None = None
    slowdown_c: int | None = None
    power_w: float | None = None
    utilisation: int | None = None  # percent
    pcie_width: int | None = None
    pcie_width_max: int | None = None
    pcie_gen: int | None = None
    pcie_gen_max: int | None = None
    throttle: tuple[str, ...] | None = None  # active clock event reasons that slow it: "HW Slowdown", "HW Power Brake"
    fabric_state: str | None = None  # NVSwitch fabric: Completed, In Progress, N/A
    fabric_status: str | None = None
    numa_node: int | None = None
    nvlinks: tuple[NvLink, ...] | None = None
    iommu_group: str | None = None


@dataclass(frozen=True)
class GpuProcess:
    """A process that holds GPU memory, in MiB."""

    pid: int
    name: str
    used_mib: int | None
    gpu_uuid: str | None = None


@dataclass(frozen=True)
class GpuFacts:
    """All of a node. ``gpus`` is None where nobody asked, empty where the driver sees none."""

    gpus: tuple[Gpu, ...] | None = None
    installed: bool | None = None  # whether there is an nvidia-smi
    trouble: str = ""  # what nvidia-smi said when it failed
    driver: str | None = None  # user space, from nvidia-smi
    kernel_driver: str | None = None  # /sys/module/nvidia/version
    open_module: bool | None = None  # the open kernel module
    cuda: str | None = None  # the highest CUDA that the driver takes
    processes: tuple[GpuProcess, ...] | None = None
    topology: str | None = None  # `nvidia-smi topo -m`
    cards: tuple[str, ...] | None = None  # PCI addresses of NVIDIA display controllers
    card_drivers: Mapping[str, str] = field(default_factory=dict)  # PCI address -> kernel driver bound to the card
    peermem: bool | None = None  # nvidia_peermem is loaded
    persistenced: bool | None = None  # nvidia-persistenced runs
    fabric_manager: str | None = None  # the unit's state: active, inactive, failed
    switches: int | None = None  # NVSwitches
    xids: tuple[tuple[str, int, str], ...] | None = None  # kernel log: PCI address, number, line
    sxids: tuple[str, ...] | None = None
    imex: str | None = None


def parse(text: str) -> tuple[Gpu, ...]:
    """GPUs from the CSV that :data:`QUERY` prints; lines of another form are left out."""
    gpus = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 3 and parts[0].isdigit():
            gpus.append(Gpu(int(parts[0]), parts[1], int(parts[2]) if parts[2].isdigit() else None))
    return tuple(gpus)


def chosen(visible: str) -> tuple[str, ...]:
    """nvidia-smi's words for the GPUs that CUDA_VISIBLE_DEVICES names; none where it leaves the choice open.

    nvidia-smi does not read that variable: without these words it tells of GPUs that no process here will use.
    """
    names = [word.strip() for word in visible.split(",") if word.strip()]
    return ("-i", ",".join(names)) if names and all(map(NAMED.fullmatch, names)) else ()


def read(host: Host, visible: str = "") -> tuple[Gpu, ...] | None:
    """The machine's GPUs that are ``visible``; None where it has no ``nvidia-smi``, empty where that sees none.

    Raises:
        CommandFailed: nvidia-smi is there and fails: the driver does not answer.
    """
    result = host.run((*QUERY, *chosen(visible)), timeout=20, ok=range(256))
    if result.code == 127:
        return None
    if result.code != 0:
        why = (result.err or result.out).strip()
        raise CommandFailed(f"{host.name}: nvidia-smi ended with code {result.code}", why=why)
    return parse(result.out)
