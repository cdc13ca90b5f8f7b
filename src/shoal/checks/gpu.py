"""GPUs: the driver, how many there are, their memory, and who else uses them."""

from shoal.checks.base import Check, Severity, Verdict, check, fail, ok, skip, unknown, warn
from shoal.checks.views import each_gpu, is_spark, listed, version, without_gpus
from shoal.facts.gpu import Gpu
from shoal.facts.node import NodeFacts

GPU = ("gpu",)
OWN_KINDS = ("raylet", "gcs_server", "vllm", "ray")
FOREIGN_MIB = 64  # below this it is a desktop's or a monitor's context
TAKEN_SHARE = 0.05  # of a GPU's memory: the driver itself keeps less


def _without_cards(node: NodeFacts) -> Verdict | None:
    """SKIP on a machine without an NVIDIA card, UNKNOWN where nothing was read."""
    gpu = node.gpu
    if gpu.gpus or gpu.cards or gpu.trouble:
        return None
    return without_gpus(node)


@check("gpu.driver-loaded", "the NVIDIA driver is loaded", severity=Severity.FATAL, needs=("gpu", "machine"))
def driver_loaded(node: NodeFacts) -> Verdict:
    """Without the kernel driver no CUDA program finds a GPU.

    It is missing after a kernel update without matching modules, with secure boot and unsigned modules, or where
    nouveau took the cards first. vLLM then fails with "no CUDA-capable device", or falls back to a CPU build's error.
    """
    gpu, modules = node.gpu, node.machine.modules
    if gpu.gpus or gpu.kernel_driver:
        return ok(f"driver {gpu.kernel_driver or gpu.driver or '(version not read)'}")
    if (none := _without_cards(node)) is not None:
        return none
    told = f"nvidia-smi: {gpu.trouble}; " if gpu.trouble else ""
    if modules is None and not gpu.trouble:
        return unknown("/proc/modules and /proc/driver/nvidia/version were not read")
    if modules is not None and "nvidia" in modules:
        return ok("/proc/modules has nvidia")
    nouveau = "; nouveau holds the cards" if "nouveau" in (modules or ()) else ""
    where = "/proc/modules has no nvidia" if modules is not None else "no kernel driver was found"
    return fail(f"{told}{where}{nouveau}", "sudo modprobe nvidia  # and if that fails: sudo apt install nvidia-open")


@check(
    "gpu.driver-matches",
    "the driver's libraries and kernel module are of one version",
    severity=Severity.FATAL,
    needs=GPU,
)
def driver_matches(node: NodeFacts) -> Verdict:
    """The driver's user space refuses a kernel module of another version, and every CUDA call fails.

    It happens when an unattended update replaced the libraries while the old module stayed loaded. Running programs go
    on; the next start of the engine fails. A reboot loads the new module.
    """
    gpu = node.gpu
    if (none := _without_cards(node)) is not None:
        return none
    mend = "sudo reboot  # or, with all GPU programs stopped: sudo rmmod nvidia_uvm nvidia && sudo modprobe nvidia"
    if "version mismatch" in gpu.trouble:
        return fail(f"nvidia-smi: {gpu.trouble}", mend)
    if not gpu.driver or not gpu.kernel_driver:
        return unknown("both versions are needed: nvidia-smi, and /sys/module/nvidia/version")
    if gpu.driver != gpu.kernel_driver:
        return fail(f"libraries {gpu.driver}, kernel module {gpu.kernel_driver} (/sys/module/nvidia/version)", mend)
    return ok(f"both {gpu.driver}")


@check("gpu.answers", "nvidia-smi answers", severity=Severity.FATAL, needs=GPU)
def answers(node: NodeFacts) -> Verdict:
    """A driver that fails to answer nvidia-smi fails every CUDA program on the node.

    The text says which: a lost GPU, missing device nodes, or a container without the NVIDIA runtime.
    """
    gpu = node.gpu
    if gpu.trouble:
        return fail(f"nvidia-smi: {gpu.trouble}", "sudo dmesg | grep -i nvrm  # says why; a lost GPU needs a reboot")
    return without_gpus(node) or ok(f"{len(gpu.gpus or ())} GPU(s)")


@check("gpu.all-seen", "every NVIDIA card is seen by the driver", severity=Severity.FATAL, needs=("gpu", "container"))
def all_seen(node: NodeFacts) -> Verdict:
    """A card on the PCI bus that the driver does not list is lost: it fell off the bus or failed to start.

    Ray then offers fewer GPUs than the plan counts on, and the engine waits for a placement that never comes.
    """
    gpu = node.gpu
    if node.container.inside:
        return skip(f"inside {node.container.inside}, which may be given a part of the GPUs")
    if gpu.cards is None:
        return unknown("the PCI bus was not read: lspci -d 10de:")
    if (none := _without_cards(node)) is not None:
        return none
    if gpu.gpus is None:
        return unknown("nvidia-smi was not asked")
    mine = [address for address in gpu.cards if gpu.card_drivers.get(address, "nvidia") != "vfio-pci"]
    seen = {item.pci for item in gpu.gpus}
    lost = [address for address in mine if address not in seen]
    if len(gpu.gpus) >= len(mine):
        return ok(f"{len(gpu.gpus)} of {len(mine)} cards")
    return fail(
        f"nvidia-smi lists {len(gpu.gpus)} of {len(mine)} cards on the PCI bus; missing: {listed(lost)}",
        f"sudo nvidia-smi -r -i {lost[0]}  # else reboot; a card that stays away needs service" if lost else "reboot",
    )


@check(
    "gpu.count-offered",
    "there are as many GPUs as SHOAL_NUM_GPUS offers",
    severity=Severity.FATAL,
    needs=("gpu", "env"),
)
def count_offered(node: NodeFacts) -> Verdict:
    """SHOAL_NUM_GPUS is what the node's Ray offers to the engine, whatever the hardware has.

    With fewer real GPUs than offered, Ray places two ranks on one GPU or a rank on none, and loading fails half way.
    """
    wanted = (node.env or {}).get("SHOAL_NUM_GPUS", "")
    if node.env is None:
        return unknown("the node's environment was not read")
    if not wanted.isdigit():
        return skip("SHOAL_NUM_GPUS is not set: all GPUs are offered")
    if node.gpu.gpus is None:
        return unknown("nvidia-smi was not asked")
    found = len(node.gpu.gpus)
    if found < int(wanted):
        return fail(f"SHOAL_NUM_GPUS={wanted}, nvidia-smi lists {found}", f"SHOAL_NUM_GPUS={found}  # in .env")
    return ok(f"{found} found, {wanted} offered")


@check("gpu.one-model", "all GPUs of the node are of one model", severity=Severity.WARNING, needs=GPU)
def one_model(node: NodeFacts) -> Verdict:
    """Tensor parallel ranks run in step, so the slowest and smallest GPU sets the pace and the size for all.

    A display card beside compute cards is the usual case: it should be left out of CUDA_VISIBLE_DEVICES.
    """
    if (none := without_gpus(node)) is not None:
        return none
    gpus = node.gpu.gpus or ()
    names = dict.fromkeys(gpu.name for gpu in gpus)
    if len(names) == 1:
        return ok(f"{len(gpus)} x {gpus[0].name}")
    most = max(names, key=lambda name: sum(gpu.name == name for gpu in gpus))
    alike = ",".join(str(gpu.index) for gpu in gpus if gpu.name == most)
    return warn(f"models: {listed(names)}", f"CUDA_VISIBLE_DEVICES={alike}  # in .env: the GPUs of one model")


@check(
    "gpu.persistence", "the driver stays loaded between programs", severity=Severity.WARNING, needs=("gpu", "machine")
)
def persistence(node: NodeFacts) -> Verdict:
    """Without persistence mode the driver gives up a GPU when its last program ends, and needs seconds to take it back.

    Settings such as clocks and ECC counters are lost with it. GB10 keeps its GPU awake by itself.
    """
    if (none := without_gpus(node)) is not None:
        return none
    if is_spark(node):
        return skip("GB10 needs no persistence mode")
    modes = [gpu.persistence for gpu in node.gpu.gpus or ()]
    if node.gpu.persistenced or all(modes):
        return ok("nvidia-persistenced runs" if node.gpu.persistenced else "persistence mode is on")
    if None in modes and False not in modes:
        return unknown("nvidia-smi -q did not say")
    off = [str(gpu.index) for gpu in node.gpu.gpus or () if gpu.persistence is False]
    return warn(f"off on GPU {listed(off)}", "sudo nvidia-smi -pm 1")


@check("gpu.foreign-processes", "no other program holds GPU memory", severity=Severity.WARNING, needs=("gpu", "stack"))
def foreign_processes(node: NodeFacts) -> Verdict:
    """vLLM takes a share of the whole GPU's memory and fails when another program already holds a part of that share.

    An engine that died badly is the usual holder. Programs of Ray and vLLM that run now are not counted.
    """
    if (none := without_gpus(node)) is not None:
        return none
    if node.gpu.processes is None:
        return unknown("nvidia-smi did not list compute processes")
    own = {item.pid for item in node.stack.processes or ()}
    foreign = [
        item
        for item in node.gpu.processes
        if item.pid not in own
        and not item.name.startswith(("ray::", "VLLM::"))
        and (item.used_mib is None or item.used_mib >= FOREIGN_MIB)
    ]
    if not foreign:
        return ok(f"{len(node.gpu.processes)} compute process(es), none foreign")
    said = (f"{item.name} (pid {item.pid}, {item.used_mib or '?'} MiB)" for item in foreign)
    return warn(listed(said), f"sudo kill {' '.join(str(item.pid) for item in foreign)}  # when nobody needs them")


@check(
    "gpu.memory-free", "GPU memory is free for the engine", severity=Severity.WARNING, needs=("gpu", "stack", "machine")
)
def memory_free(node: NodeFacts) -> Verdict:
    """vLLM's share of memory is counted from the whole GPU, so memory that is gone already makes it fail at start.

    Memory without a process that explains it belongs to another container, or to a process that cannot die.
    """
    own = [item for item in node.stack.processes or () if item.kind in OWN_KINDS]

    def judge(gpu: Gpu) -> Verdict:
        if gpu.memory_mib is None:
            return skip("GB10 shares the machine's memory" if is_spark(node) else f"GPU {gpu.index} reports no memory")
        if gpu.used_mib is None:
            return unknown(f"nvidia-smi did not say what GPU {gpu.index} has in use")
        said = f"GPU {gpu.index}: {gpu.used_mib} of {gpu.memory_mib} MiB in use"
        if gpu.used_mib > gpu.memory_mib * TAKEN_SHARE:
            return warn(said, f"sudo fuser -v /dev/nvidia{gpu.index}  # names the holders")
        return ok(said)

    if own and not without_gpus(node):
        return skip(f"an engine of Ray or vLLM runs (pid {own[0].pid})")
    return each_gpu(node, judge)


@check("gpu.compute-mode", "GPUs take compute programs", severity=Severity.FATAL, needs=GPU)
def compute_mode(node: NodeFacts) -> Verdict:
    """A GPU in compute mode "Prohibited" refuses every CUDA context."""

    def judge(gpu: Gpu) -> Verdict:
        if gpu.compute_mode is None:
            return unknown(f"nvidia-smi did not say the compute mode of GPU {gpu.index}")
        if "prohibited" in gpu.compute_mode.lower():
            return fail(f"GPU {gpu.index}: {gpu.compute_mode}", f"sudo nvidia-smi -i {gpu.index} -c DEFAULT")
        return ok(gpu.compute_mode)

    return each_gpu(node, judge)


@check("gpu.mig-off", "GPUs are whole: MIG is off", severity=Severity.WARNING, needs=GPU)
def mig_off(node: NodeFacts) -> Verdict:
    """Slices of a MIG GPU reach each other neither over NVLink nor by peer access, and NCCL refuses two of one GPU.

    A model on one slice works. A model over several ranks wants whole GPUs.
    """

    def judge(gpu: Gpu) -> Verdict:
        if gpu.mig:
            return warn(f"GPU {gpu.index}: MIG is enabled", f"sudo nvidia-smi -i {gpu.index} -mig 0")
        return ok("MIG is disabled" if gpu.mig is False else "this GPU has no MIG")

    return each_gpu(node, judge)


@check(
    "gpu.cuda-runtime",
    "the driver is new enough for the installed CUDA runtime",
    severity=Severity.FATAL,
    needs=("gpu", "stack"),
)
def cuda_runtime(node: NodeFacts) -> Verdict:
    """A CUDA runtime needs a driver of the same major version or newer; minor versions fit each other.

    Data-centre GPUs also run with the compatibility package of a newer CUDA, which NVIDIA's images carry.
    """
    if (none := without_gpus(node)) is not None:
        return none
    runtime, highest = version(node.stack.cuda_runtime), version(node.gpu.cuda)
    if not runtime:
        return unknown("torch was not asked for its CUDA version: python3 -c 'import torch; print(torch.version.cuda)'")
    if not highest:
        return unknown("nvidia-smi did not say which CUDA the driver takes")
    said = f"runtime {node.stack.cuda_runtime}, driver {node.gpu.driver or '?'} takes up to CUDA {node.gpu.cuda}"
    if runtime[0] > highest[0]:
        return fail(said, f"sudo apt install cuda-compat-{runtime[0]}-{runtime[1] if len(runtime) > 1 else 0}")
    return ok(said)


@check("gpu.gb10-memory", "the memory that GB10 shares with its CPU is free", needs=("gpu", "machine", "stack"))
def gb10_memory(node: NodeFacts) -> Verdict:
    """GB10 has one memory for CPU and GPU, and nvidia-smi reports none of it: the kernel's figures are the only ones.

    vLLM asks for a share of all of it. What other programs hold is missing, and the machine may freeze, not fail.
    """
    if (none := _not_gb10(node)) is not None:
        return none
    running = [item.pid for item in node.stack.processes or () if item.kind == "vllm"]
    if running:
        return skip(f"an engine runs (pid {running[0]})")
    total, available = node.machine.memory.get("MemTotal"), node.machine.memory.get("MemAvailable")
    if not total or available is None:
        return unknown("/proc/meminfo was not read")
    said = f"/proc/meminfo: {available / 2**30:.0f} of {total / 2**30:.0f} GiB available"
    if available < total / 2:
        return fail(said, "ps aux --sort=-rss | head  # stop what holds it, or lower --gpu-memory-utilization")
    return ok(said)


@check(
    "gpu.gb10-page-cache",
    "the page cache leaves memory to GB10",
    severity=Severity.WARNING,
    needs=("gpu", "machine", "stack"),
)
def gb10_page_cache(node: NodeFacts) -> Verdict:
    """CUDA counts only memory that is really free on GB10, and the page cache of a model just copied is not.

    vLLM then sees too little memory and ends at start, although the kernel would give the cache up.
    """
    if (none := _not_gb10(node)) is not None:
        return none
    memory = node.machine.memory
    total, free, cached = memory.get("MemTotal"), memory.get("MemFree"), memory.get("Cached")
    if not total or free is None or cached is None:
        return unknown("/proc/meminfo was not read")
    said = f"/proc/meminfo: {free / 2**30:.0f} GiB free, {cached / 2**30:.0f} GiB cached of {total / 2**30:.0f}"
    if free < total / 4 and cached > total / 4:
        return warn(said, "sudo sh -c 'sync; echo 3 > /proc/sys/vm/drop_caches'")
    return ok(said)


def _not_gb10(node: NodeFacts) -> Verdict | None:
    """SKIP on other GPUs, UNKNOWN where it is not known which they are."""
    if is_spark(node):
        return None
    return without_gpus(node) or skip(f"not a GB10: {listed(dict.fromkeys(gpu.name for gpu in node.gpu.gpus or ()))}")


@check(
    "gpu.gb10-gdr", "GPUDirect RDMA is judged by what the GPU can do", severity=Severity.INFO, needs=("gpu", "machine")
)
def gb10_gdr(node: NodeFacts) -> Verdict:
    """GB10 has no GPUDirect RDMA: its memory is the CPU's, and the NIC reaches that directly anyway.

    NCCL's "GPU Direct RDMA Disabled" is expected there, and so is "Invalid argument" from modprobe nvidia_peermem.
    """
    return _not_gb10(node) or ok("GB10: NCCL says GPU Direct RDMA Disabled, as it should")


CHECKS: tuple[Check[NodeFacts], ...] = (
    driver_loaded,
    driver_matches,
    answers,
    all_seen,
    count_offered,
    one_model,
    persistence,
    foreign_processes,
    memory_free,
    compute_mode,
    mig_off,
    cuda_runtime,
    gb10_memory,
    gb10_page_cache,
    gb10_gdr,
)
