"""Known-bad and least versions: what must not run together, each row with its source; and the checks that ask them."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from shoal.checks.base import Check, Severity, Verdict, check, fail, ok, skip, unknown, warn, worst
from shoal.checks.fabric import fabric, plugin
from shoal.checks.views import each_device, effective_env, is_spark, listed, version, without_gpus, without_rdma
from shoal.facts.node import NodeFacts
from shoal.facts.rdma import RdmaDevice
from shoal.nccl.gid import AUTOMATIC_SINCE, PASSES_OVER_SINCE, choose
from shoal.nccl.hca import HCA
from shoal.nccl.variables import parse_version


@dataclass(frozen=True)
class DriverFloor:
    """The oldest driver for a GPU; ``gpu`` is a pattern for its name."""

    gpu: str
    least: str
    source: str


DRIVER_FLOORS = (
    DriverFloor(r"\bB[23]00\b", "570.133.20", "NVIDIA GPU Operator, platform support: HGX B200 requires 570.133.20"),
    DriverFloor(r"\bGB10\b", "580", "NVIDIA DGX Spark ships with the 580 branch (DGX OS 7 release notes)"),
    DriverFloor(r"\bH(100|200|800)\b|\bGH200\b", "525", "NVIDIA data-centre drivers: Hopper since R525 (CUDA 12.0)"),
)


@dataclass(frozen=True)
class BadKernel:
    """A kernel that breaks RDMA on a machine. ``pattern`` fits its ``uname -r``."""

    pattern: str
    boot_word: str  # a word on the kernel's command line that avoids it
    why: str
    source: str


GB10_KERNELS = (
    BadKernel(
        r"^7\.0\.0-(1019-nvidia|31-)",
        "kho=off",
        "kexec handover counts CMA memory twice: ibv_reg_mr fails with ENOMEM",
        "NVIDIA/NV-Kernels pull request 590; eugr/spark-vllm-docker issue 389",
    ),
)


@dataclass(frozen=True)
class FirmwareFloor:
    """The oldest firmware for a card in a product; ``product`` is a part of the DMI product name."""

    product: str
    least: str
    source: str


FIRMWARE_FLOORS = (FirmwareFloor("Spark", "28.45.4028", "NVIDIA/dgx-spark-playbooks: firmware of the ConnectX-7"),)


@dataclass(frozen=True)
class Fabric:
    """What a product has when all is well: so many ports of the fabric, each of this rate in Gb/s."""

    product: str
    ports: int
    rate: int
    source: str


FABRICS = (
    Fabric(r"DGX ?A100", 8, 200, "leptonai/gpud, infiniband thresholds; DGX A100 user guide"),
    Fabric(r"DGX ?H[12]00", 8, 400, "leptonai/gpud, infiniband thresholds; DGX H100 user guide"),
    Fabric(r"DGX ?B[23]00", 8, 400, "leptonai/gpud, infiniband thresholds; DGX B200 user guide"),
    Fabric(r"DGX Spark", 1, 200, "NVIDIA/dgx-spark-playbooks: ethtool shows 200000 Mb/s"),
)

# From these on a GPU works with the open kernel modules only.
OPEN_ONLY = r"\b(B[123]00|GB[123]00|GB10|GH200)\b|Blackwell|RTX 50\d\d"
OPEN_SOURCE = "NVIDIA driver installation guide, kernel modules: Grace Hopper and Blackwell need the open ones"


def product(node: NodeFacts) -> str:
    """The DMI product name with spaces: DGX Spark writes underscores."""
    return (node.machine.product or "").replace("_", " ")


def known_fabric(node: NodeFacts) -> Fabric | None:
    """What this product's fabric has."""
    return next((row for row in FABRICS if re.search(row.product, product(node))), None)


@check("gpu.driver-floor", "the driver is new enough for the GPUs", severity=Severity.FATAL, needs=("gpu",))
def driver_floor(node: NodeFacts) -> Verdict:
    """A driver older than the GPU does not start it, or starts it without what NCCL and CUDA count on."""
    if (none := without_gpus(node)) is not None:
        return none
    driver = node.gpu.driver or node.gpu.kernel_driver
    if driver is None:
        return unknown("nvidia-smi did not say the driver's version")
    rows = [row for row in DRIVER_FLOORS if any(re.search(row.gpu, gpu.name) for gpu in node.gpu.gpus or ())]
    for row in rows:
        if version(driver) < version(row.least):
            mend = f"sudo apt install nvidia-open-{version(row.least)[0]}"
            return fail(f"driver {driver}, needed {row.least} ({row.source})", mend)
    return ok(f"driver {driver}") if rows else skip("no least driver is known for these GPUs")


@check("gpu.open-modules", "GPUs that need the open kernel modules have them", severity=Severity.FATAL, needs=("gpu",))
def open_modules(node: NodeFacts) -> Verdict:
    """Grace Hopper and Blackwell GPUs do not start with the proprietary kernel modules."""
    if (none := without_gpus(node)) is not None:
        return none
    names = dict.fromkeys(gpu.name for gpu in node.gpu.gpus or () if re.search(OPEN_ONLY, gpu.name))
    if not names:
        return skip("these GPUs work with either kind of module")
    if node.gpu.open_module is None:
        return unknown("/proc/driver/nvidia/version was not read")
    if not node.gpu.open_module:
        major = (version(node.gpu.driver) or (580,))[0]
        said = f"{listed(names)} with proprietary modules ({OPEN_SOURCE})"
        return fail(said, f"sudo apt install nvidia-open-{major}")
    return ok("open kernel modules")


@check(
    "gpu.gb10-kernel",
    "the kernel of a GB10 can register memory for RDMA",
    severity=Severity.FATAL,
    needs=("gpu", "machine"),
)
def gb10_kernel(node: NodeFacts) -> Verdict:
    """Some kernels for GB10 count memory set aside twice, and registering buffers fails although memory is free.

    NCCL then ends with "Cannot allocate memory" from ibv_reg_mr, with an unlimited memlock.
    """
    if not is_spark(node):
        return without_gpus(node) or skip("not a GB10")
    kernel, cmdline = node.machine.kernel, node.machine.cmdline
    if kernel is None:
        return unknown("uname -r was not read")
    total, free = node.machine.memory.get("CmaTotal"), node.machine.memory.get("CmaFree")
    doubled = total is not None and free is not None and free > total
    for row in GB10_KERNELS:
        if not (re.search(row.pattern, kernel) or doubled):
            continue
        if row.boot_word in (cmdline or "").split():
            return ok(f"Linux {kernel} with {row.boot_word}")
        if cmdline is None and not doubled:
            return unknown(f"Linux {kernel} needs {row.boot_word}, and /proc/cmdline was not read")
        counted = f"; CmaFree {free} > CmaTotal {total} (/proc/meminfo)" if doubled else ""
        mend = f"add {row.boot_word} to GRUB_CMDLINE_LINUX in /etc/default/grub; sudo update-grub && sudo reboot"
        return fail(f"Linux {kernel}: {row.why}{counted} ({row.source})", mend)
    return ok(f"Linux {kernel}")


@check(
    "rdma.firmware-floor",
    "the firmware of RDMA cards is new enough for the product",
    severity=Severity.WARNING,
    needs=("rdma", "machine"),
)
def firmware_floor(node: NodeFacts) -> Verdict:
    """Older firmware of these cards has known faults: lower rates, links that do not come up."""
    if (none := without_rdma(node)) is not None:
        return none
    row = next((item for item in FIRMWARE_FLOORS if item.product in product(node)), None)
    if row is None:
        return skip(f"no least firmware is known for {product(node) or 'this machine'}")

    def judge(device: RdmaDevice) -> Verdict:
        if not device.fw_ver:
            return unknown(f"{device.name}: fw_ver was not read")
        if version(device.fw_ver) < version(row.least):
            said = f"{device.name}: {device.fw_ver}, needed {row.least} ({row.source})"
            return warn(said, "sudo fwupdmgr refresh && sudo fwupdmgr update")
        return ok(device.fw_ver)

    return each_device(node, judge)


@check("rdma.port-count", "the product's ports of the fabric are all ACTIVE", needs=("rdma", "machine", "env", "stack"))
def port_count(node: NodeFacts) -> Verdict:
    """A product with one card for each GPU is planned with all of them: one missing rail slows every collective."""
    return _fabric_row(node, lambda row: _count(node, row))


def _count(node: NodeFacts, row: Fabric) -> Verdict:
    fast = [port for port in fabric(node) if (port.port.rate_gbps or 0) >= row.rate]
    said = f"{len(fast)} ACTIVE ports of {row.rate} Gb/s, {product(node)} has {row.ports}"
    return ok(said) if len(fast) >= row.ports else fail(f"{said} ({row.source})", "rdma link show  # find the others")


@check("rdma.rate-expected", "ports run at the product's rate", needs=("rdma", "machine", "env", "stack"))
def rate_expected(node: NodeFacts) -> Verdict:
    """A port below the rate of its product has trained down: a cable, a switch port set lower, or old firmware."""
    return _fabric_row(node, lambda row: _rate(node, row))


def _rate(node: NodeFacts, row: Fabric) -> Verdict:
    def judge(device: RdmaDevice, rate: float | None, text: str) -> Verdict:
        if rate is None:
            return unknown(f"{device.name}: its rate was not read")
        said = f"{device.name}: {text or rate}, {product(node)} has {row.rate} Gb/s"
        mend = f"sudo mlxlink -d {device.pci or device.name} -m -c  # cable and switch port"
        return ok(f"{rate:g} Gb/s") if rate >= row.rate else fail(f"{said} ({row.source})", mend)

    return worst(judge(port.device, port.port.rate_gbps, port.port.rate_text) for port in fabric(node))


@check(
    "roce.gid-types-readable",
    "this NCCL can read the GID table",
    severity=Severity.FATAL,
    needs=("rdma", "stack", "env"),
)
def gid_types_readable(node: NodeFacts) -> Verdict:
    """NCCL 2.21 to 2.25 ends when it cannot read the type of a slot that it looks at.

    The kernel answers EINVAL for a slot of another network namespace. The message is "read failed in
    ncclIbRoceGetVersionNum: Invalid argument" (NVIDIA/nccl issues 1538 and 1573). A pinned index avoids the search, and
    NCCL 2.26 passes over such slots.
    """
    if (none := without_rdma(node)) is not None:
        return none
    mine = [port for port in fabric(node) if port.is_ethernet]
    if not mine:
        return skip("no ACTIVE Ethernet port in the fabric")
    if (loaded := plugin(node)) is not None:
        return skip(f"a plugin reads it: {loaded}")
    installed = parse_version(node.stack.nccl or "")
    if installed is None:
        return unknown("the installed NCCL is not known: python3 -c 'import torch; print(torch.cuda.nccl.version())'")
    if not AUTOMATIC_SINCE <= installed < PASSES_OVER_SINCE:
        return ok(f"NCCL {node.stack.nccl}")
    choices = {
        port.label: choose(port.port.gids, port.port.link_layer, installed, effective_env(node)) for port in mine
    }
    broken = [f"{label}: {choice.why}" for label, choice in choices.items() if choice.fails]
    if broken:
        return fail(listed(broken), "pip install -U 'nvidia-nccl-cu12>=2.26'  # or a newer image")
    return ok(f"NCCL {node.stack.nccl}, and it can read every slot that it looks at")


def _fabric_row(node: NodeFacts, judge: Callable[[Fabric], Verdict]) -> Verdict:
    """The judgement where this product's fabric is known."""
    if (none := without_rdma(node)) is not None:
        return none
    if HCA in effective_env(node):
        return skip(f"NCCL_IB_HCA={effective_env(node)[HCA]} chooses the ports")
    row = known_fabric(node)
    if row is None:
        return skip(f"what {product(node) or 'this machine'} should have is not known")
    if not fabric(node):
        return skip("no ACTIVE port: see rdma.some-port-active")
    return judge(row)


CHECKS: tuple[Check[NodeFacts], ...] = (
    driver_floor,
    open_modules,
    gb10_kernel,
    firmware_floor,
    port_count,
    rate_expected,
    gid_types_readable,
)
