"""GPUs: NVLink and its switches, PCI Express, and the way from a GPU to the NIC."""

from shoal.checks.base import Check, Severity, Verdict, check, fail, ok, skip, unknown, warn, worst
from shoal.checks.views import each_gpu, is_spark, is_virtual, listed, version, without_gpus
from shoal.facts.gpu import Gpu
from shoal.facts.node import NodeFacts

GPU = ("gpu",)
NVLINK_ERRORS_MOST = 5  # between two readings: imbue-ai/cluster-health
DMA_BUF_KERNEL = (5, 12)
BUSY = 50  # percent: above it a GPU has its PCI link at full speed
FABRIC_NAMES = ("GB200", "GB300")  # racks where NVLink joins machines, by IMEX


def is_switched(node: NodeFacts) -> bool:
    """Whether the GPUs hang on NVSwitches."""
    states = [gpu.fabric_state for gpu in node.gpu.gpus or ()]
    return bool(node.gpu.switches) or any(state and state not in ("N/A", "Not Supported") for state in states)


def _without_nvlink(node: NodeFacts) -> Verdict | None:
    """SKIP where no GPU has an NVLink that anyone joined."""
    if (none := without_gpus(node)) is not None:
        return none
    links = [gpu.nvlinks for gpu in node.gpu.gpus or ()]
    if all(item is None for item in links):
        return unknown("nvidia-smi nvlink -s was not asked")
    if not any(links):
        return skip("these GPUs have no NVLink")
    if not is_switched(node) and not any(link.active for item in links for link in item or ()):
        return skip("no NVLink bridge is fitted")
    return None


@check("gpu.nvlink-active", "every NVLink is active", needs=GPU)
def nvlink_active(node: NodeFacts) -> Verdict:
    """A GPU with a dead NVLink talks to its neighbours over fewer links, and NCCL slows all of them to the slowest.

    GPUs joined by bridges may leave links free; those behind NVSwitches use every one.
    """

    def judge(gpu: Gpu) -> Verdict:
        dead = [str(link.index) for link in gpu.nvlinks or () if not link.active]
        if dead and is_switched(node):
            return fail(
                f"GPU {gpu.index} ({gpu.pci or '?'}): link {listed(dead)} inactive",
                "sudo systemctl restart nvidia-fabricmanager && nvidia-smi nvlink -s",
            )
        return ok(f"{len(gpu.nvlinks or ()) - len(dead)} links on every GPU" if not dead else "joined by bridges")

    return _without_nvlink(node) or each_gpu(node, judge)


@check("gpu.nvlink-equal", "GPUs have equally many active NVLinks", needs=GPU)
def nvlink_equal(node: NodeFacts) -> Verdict:
    """NCCL lays its rings over the links that all GPUs have, so one GPU with fewer slows the node.

    Bridges may join some of several GPUs on purpose: only pairs and switched GPUs are compared.
    """
    if (none := _without_nvlink(node)) is not None:
        return none
    gpus = node.gpu.gpus or ()
    if not is_switched(node) and len(gpus) != 2:
        return skip(f"{len(gpus)} GPUs joined by bridges")
    counts = {gpu.index: sum(link.active for link in gpu.nvlinks or ()) for gpu in gpus}
    most = max(counts.values())
    few = [f"GPU {index} has {count}" for index, count in counts.items() if count < most]
    if few:
        return fail(f"{listed(few)}, others {most}", "nvidia-smi nvlink -s  # a GPU or bridge to reseat")
    return ok(f"{most} each")


@check("gpu.nvlink-speed", "active NVLinks have one speed", severity=Severity.WARNING, needs=GPU)
def nvlink_speed(node: NodeFacts) -> Verdict:
    """A link that trained at a lower speed than its neighbours drags its channel down."""
    if (none := _without_nvlink(node)) is not None:
        return none
    speeds = {
        (gpu.index, link.index): link.gbps
        for gpu in node.gpu.gpus or ()
        for link in gpu.nvlinks or ()
        if link.active and link.gbps is not None
    }
    if not speeds:
        return unknown("nvidia-smi nvlink -s gave no speeds")
    most = max(speeds.values())
    slow = [f"GPU {gpu} link {link} at {speed} GB/s" for (gpu, link), speed in speeds.items() if speed < most]
    if slow:
        return warn(f"{listed(slow)}, others {most} GB/s", "sudo nvidia-smi -r  # retrains the links")
    return ok(f"{len(speeds)} links at {most} GB/s")


@check("gpu.nvlink-errors", "NVLink errors stay as they are", severity=Severity.WARNING, needs=("gpu", "before"))
def nvlink_errors(node: NodeFacts) -> Verdict:
    """Replays and CRC errors cost time on every message of that link, and announce a link about to fail.

    The counters are since the driver was loaded, so only their growth between two readings is judged.
    """
    if (none := _without_nvlink(node)) is not None:
        return none
    counts = _nvlink_errors(node)
    if not counts:
        return unknown("nvidia-smi nvlink -e was not asked")
    if not sum(counts.values()):
        return ok("no NVLink errors since the driver was loaded")
    if node.before is None:
        counted = listed(f"GPU {index}: {count}" for index, count in counts.items() if count)
        return skip(f"one reading only; since the driver was loaded: {counted}")
    earlier = _nvlink_errors(node.before)
    grown = {index: count - earlier.get(index, count) for index, count in counts.items()}
    said = listed(f"GPU {index} had {count} more" for index, count in grown.items() if count) or "none since then"
    if max(grown.values()) >= NVLINK_ERRORS_MOST:
        return warn(said, "nvidia-smi nvlink -e  # names the link")
    return ok(said)


def _nvlink_errors(node: NodeFacts) -> dict[int, int]:
    """GPU index -> errors of all its NVLinks."""
    return {
        gpu.index: sum(link.errors or 0 for link in gpu.nvlinks or ())
        for gpu in node.gpu.gpus or ()
        if any(link.errors is not None for link in gpu.nvlinks or ())
    }


def _without_switch(node: NodeFacts) -> Verdict | None:
    """SKIP where no NVSwitch needs to be configured."""
    if (none := without_gpus(node)) is not None:
        return none
    if is_switched(node):
        return None
    if node.gpu.switches is None and all(gpu.fabric_state is None for gpu in node.gpu.gpus or ()):
        return unknown("nvidia-smi -q shows no Fabric section, and the PCI bus was not searched for NVSwitches")
    return skip("no NVSwitch on this machine")


@check("gpu.fabric-manager", "the fabric manager runs", severity=Severity.FATAL, needs=("gpu", "container", "machine"))
def fabric_manager(node: NodeFacts) -> Verdict:
    """NVSwitches carry nothing until the fabric manager has configured them, and CUDA refuses to start before.

    It must be of exactly the driver's version: an update of one without the other stops it.
    """
    if (none := _without_switch(node)) is not None:
        return none
    if node.container.inside or is_virtual(node):
        return skip("it runs on the host, outside " + (node.container.inside or "this virtual machine"))
    if node.gpu.fabric_manager is None:
        return unknown("systemctl is-active nvidia-fabricmanager was not asked")
    if node.gpu.fabric_manager != "active":
        package = "-".join(["nvidia-fabricmanager", *map(str, version(node.gpu.driver or "")[:1])])
        return fail(
            f"systemctl is-active nvidia-fabricmanager: {node.gpu.fabric_manager}; driver {node.gpu.driver or '?'}",
            f"sudo systemctl enable --now nvidia-fabricmanager  # refuses? sudo apt install {package}, as the driver",
        )
    return ok("systemctl is-active nvidia-fabricmanager: active")


@check("gpu.fabric-ready", "every GPU has joined the NVSwitch fabric", severity=Severity.FATAL, needs=GPU)
def fabric_ready(node: NodeFacts) -> Verdict:
    """Until a GPU's fabric state is "Completed" with status "Success", CUDA fails with "system not yet initialized"."""

    def judge(gpu: Gpu) -> Verdict:
        state, status = gpu.fabric_state, gpu.fabric_status
        if state is None:
            return unknown(f"nvidia-smi -q shows no fabric state for GPU {gpu.index}")
        if state != "Completed" or status not in (None, "Success", "N/A"):
            mend = "sudo systemctl restart nvidia-fabricmanager"
            return fail(f"GPU {gpu.index} ({gpu.pci or '?'}): state {state}, status {status or '?'}", mend)
        return ok("state Completed on every GPU")

    return _without_switch(node) or each_gpu(node, judge)


@check("gpu.imex", "IMEX is ready where NVLink joins machines", needs=GPU)
def imex(node: NodeFacts) -> Verdict:
    """In GB200 and GB300 racks memory is shared between machines by the IMEX service.

    Without it NCCL uses the network between machines of one NVLink domain, or fails when it tries.
    """
    if (none := without_gpus(node)) is not None:
        return none
    if not any(word in gpu.name for gpu in node.gpu.gpus or () for word in FABRIC_NAMES):
        return skip("no NVLink between machines here")
    if node.gpu.imex is None:
        return unknown("nvidia-imex-ctl -N was not asked")
    if "READY" not in node.gpu.imex.upper().replace("NOT_READY", "").replace("NOT READY", ""):
        return fail(f"nvidia-imex-ctl -N: {node.gpu.imex}", "sudo systemctl enable --now nvidia-imex")
    return ok(f"nvidia-imex-ctl -N: {node.gpu.imex}")


def _without_slot(node: NodeFacts) -> Verdict | None:
    """SKIP where the PCI link of a GPU says nothing about a slot."""
    if (none := without_gpus(node)) is not None:
        return none
    if is_spark(node):
        return skip("GB10 sits on the CPU's package, not in a slot")
    return skip(f"a virtual machine ({node.machine.virtual}) shows no real slot") if is_virtual(node) else None


@check("gpu.pcie-width", "GPUs have all PCI Express lanes", severity=Severity.WARNING, needs=("gpu", "machine"))
def pcie_width(node: NodeFacts) -> Verdict:
    """A card that is badly seated comes up with half its lanes or fewer, and moves data at that share."""

    def judge(gpu: Gpu) -> Verdict:
        if not gpu.pcie_width or not gpu.pcie_width_max:
            return unknown(f"nvidia-smi -q did not say the lanes of GPU {gpu.index}")
        if gpu.pcie_width < gpu.pcie_width_max:
            return warn(
                f"GPU {gpu.index} ({gpu.pci or '?'}): x{gpu.pcie_width} of x{gpu.pcie_width_max}",
                f"sudo lspci -s {gpu.pci or '10de:'} -vv | grep LnkSta  # power off and reseat the card",
            )
        return ok(f"x{gpu.pcie_width} of x{gpu.pcie_width_max}")

    return _without_slot(node) or each_gpu(node, judge)


@check("gpu.pcie-speed", "busy GPUs run PCI Express at full speed", severity=Severity.WARNING, needs=("gpu", "machine"))
def pcie_speed(node: NodeFacts) -> Verdict:
    """A link that trained at a lower generation moves half or a quarter. An idle GPU lowers its link on purpose.

    So it is judged only on GPUs that work at that moment.
    """

    def judge(gpu: Gpu) -> Verdict:
        if not gpu.pcie_gen or not gpu.pcie_gen_max:
            return unknown(f"nvidia-smi -q did not say the PCI generation of GPU {gpu.index}")
        said = f"GPU {gpu.index} ({gpu.pci or '?'}): generation {gpu.pcie_gen} of {gpu.pcie_gen_max}"
        if gpu.pcie_gen == gpu.pcie_gen_max:
            return ok(said)
        if (gpu.utilisation or 0) < BUSY:
            return skip(f"GPU {gpu.index} is idle")
        return warn(said, f"sudo lspci -s {gpu.pci or '10de:'} -vv | grep LnkSta  # reseat it")

    return _without_slot(node) or each_gpu(node, judge)


@check("gpu.numa-known", "each GPU's NUMA node is known", severity=Severity.WARNING, needs=("gpu", "machine"))
def numa_known(node: NodeFacts) -> Verdict:
    """On a machine of several sockets NCCL pairs GPUs with the NICs of the same socket, and pins its threads there.

    Where firmware or a container hides the NUMA node, it guesses, and traffic crosses sockets.
    """

    def judge(gpu: Gpu) -> Verdict:
        if gpu.numa_node is None:
            return unknown(f"/sys/bus/pci/devices/{gpu.pci or '<GPU>'}/numa_node was not read")
        if gpu.numa_node < 0:
            where = f"/sys/bus/pci/devices/{gpu.pci or '<GPU>'}/numa_node"
            return warn(f"GPU {gpu.index}: {where} is -1", "enable NUMA in the BIOS; in a container: -v /sys:/sys:ro")
        return ok("known for every GPU")

    if node.machine.numa_nodes is not None and node.machine.numa_nodes < 2 and not without_gpus(node):
        return skip("one NUMA node")
    return each_gpu(node, judge)


@check(
    "gpu.gdr-path", "the NIC can reach GPU memory directly", severity=Severity.WARNING, needs=("gpu", "rdma", "machine")
)
def gdr_path(node: NodeFacts) -> Verdict:
    """GPUDirect RDMA moves data between GPU and NIC without a copy in the CPU's memory.

    It needs nvidia_peermem, or dma-buf: the open kernel modules on Linux 5.12 or newer. Without either, NCCL goes
    through host memory, at a fraction of a fast fabric's rate.
    """
    if (none := without_gpus(node)) is not None:
        return none
    if is_spark(node):
        return skip("GB10 has no GPUDirect RDMA, and needs none")
    if node.rdma.devices == ():
        return skip("no RDMA device on this machine")
    gpu, kernel = node.gpu, version(node.machine.kernel)[:2]
    if gpu.peermem:
        return ok("nvidia_peermem is loaded")
    if gpu.open_module and kernel >= DMA_BUF_KERNEL:
        return ok(f"dma-buf: open kernel modules on Linux {node.machine.kernel}")
    if gpu.peermem is None or gpu.open_module is None or not kernel:
        return unknown("needs /sys/module/nvidia_peermem, /proc/driver/nvidia/version and the kernel's version")
    said = f"nvidia_peermem is not loaded, kernel modules {'open' if gpu.open_module else 'proprietary'}"
    return warn(f"{said}, Linux {node.machine.kernel}", "sudo modprobe nvidia_peermem  # or the open modules: dma-buf")


@check(
    "gpu.bar1", "all of GPU memory can be reached over PCI Express", severity=Severity.WARNING, needs=("gpu", "rdma")
)
def bar1(node: NodeFacts) -> Verdict:
    """NICs and other GPUs reach a GPU's memory through its BAR1 window. One smaller than the memory is filled quickly.

    Registration of buffers then fails with "Cannot allocate memory". Resizable BAR in the BIOS opens it.
    """

    def judge(gpu: Gpu) -> Verdict:
        if gpu.memory_mib is None:
            return skip(f"{gpu.name} reports no memory of its own")
        if gpu.bar1_mib is None:
            return unknown(f"nvidia-smi -q did not say the BAR1 size of GPU {gpu.index}")
        said = f"GPU {gpu.index}: BAR1 {gpu.bar1_mib} MiB, memory {gpu.memory_mib} MiB"
        if gpu.bar1_mib < gpu.memory_mib:
            return warn(said, "enable Resizable BAR and Above 4G Decoding in the BIOS")
        return ok(said)

    if (none := without_gpus(node)) is not None:
        return none
    if len(node.gpu.gpus or ()) == 1 and not node.rdma.devices:
        return skip("one GPU and no RDMA device: nobody else reaches its memory")
    return worst(judge(gpu) for gpu in node.gpu.gpus or ())


CHECKS: tuple[Check[NodeFacts], ...] = (
    nvlink_active,
    nvlink_equal,
    nvlink_speed,
    nvlink_errors,
    fabric_manager,
    fabric_ready,
    imex,
    pcie_width,
    pcie_speed,
    numa_known,
    gdr_path,
    bar1,
)
