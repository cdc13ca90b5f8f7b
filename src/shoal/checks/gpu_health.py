"""GPUs: memory errors, Xid lines, heat and throttling."""

import re

from shoal.checks.base import Check, Severity, Verdict, check, fail, ok, skip, unknown, warn
from shoal.checks.views import each_gpu, is_spark, listed, without_gpus
from shoal.facts.gpu import Gpu
from shoal.facts.node import NodeFacts

GPU = ("gpu",)
# Xid numbers that end a GPU's work: the list that Azure's node health checks drain on (azurehpc-health-checks,
# csc_nvidia_smi / nvidia Xid test). Others (13, 31, 43, 45, 94) are an application's own.
FATAL_XIDS = frozenset((48, 56, 57, 58, 62, 63, 64, 65, 68, 69, 73, 74, 80, 81, 92, 119, 120))
OFF_THE_BUS = 79
CORRECTED_MOST = 10_000  # corrected errors since the driver loaded: azurehpc-health-checks, check_gpu_ecc
NEAR_SLOWDOWN = 5  # degrees below the limit where the GPU slows itself


def _reset(gpu: Gpu) -> str:
    return f"sudo nvidia-smi -r -i {gpu.index}  # with its programs stopped; else reboot"


@check("gpu.ecc-uncorrected", "GPU memory has had no uncorrected error", needs=GPU)
def ecc_uncorrected(node: NodeFacts) -> Verdict:
    """An uncorrected error means that data was lost, and the program that read it was ended.

    The count is since the driver was loaded. The GPU maps the bad row away at the next reset; until then it may recur.
    """

    def judge(gpu: Gpu) -> Verdict:
        if gpu.ecc_uncorrected is None:
            return skip(f"{gpu.name} reports no ECC counts")
        if gpu.ecc_uncorrected:
            return fail(f"GPU {gpu.index} ({gpu.pci or '?'}): {gpu.ecc_uncorrected} uncorrected errors", _reset(gpu))
        return ok("no uncorrected errors")

    return each_gpu(node, judge)


@check("gpu.ecc-corrected", "GPU memory has few corrected errors", severity=Severity.WARNING, needs=GPU)
def ecc_corrected(node: NodeFacts) -> Verdict:
    """Corrected errors do no harm by themselves, and many of them announce a row that is going bad.

    The limit is 10,000 since the driver was loaded.
    """

    def judge(gpu: Gpu) -> Verdict:
        if gpu.ecc_corrected is None:
            return skip(f"{gpu.name} reports no ECC counts")
        if gpu.ecc_corrected > CORRECTED_MOST:
            return warn(
                f"GPU {gpu.index}: {gpu.ecc_corrected} corrected errors, more than {CORRECTED_MOST}",
                f"nvidia-smi -q -i {gpu.index} -d ECC,ROW_REMAPPER  # and watch it",
            )
        return ok(f"at most {CORRECTED_MOST} corrected errors")

    return each_gpu(node, judge)


@check("gpu.rows-remapped", "no memory row waits to be remapped", needs=GPU)
def rows_remapped(node: NodeFacts) -> Verdict:
    """A pending remap is a memory row known to be bad and still in use: it is replaced by a spare at the next reset."""

    def judge(gpu: Gpu) -> Verdict:
        if gpu.remap_pending is None:
            return skip(f"{gpu.name} reports no row remapping")
        if gpu.remap_pending:
            return fail(f"GPU {gpu.index} ({gpu.pci or '?'}): row remapping is pending", _reset(gpu))
        return ok("none pending")

    return each_gpu(node, judge)


@check("gpu.remap-possible", "every bad memory row could be remapped", severity=Severity.FATAL, needs=GPU)
def remap_possible(node: NodeFacts) -> Verdict:
    """A failed remap means that the GPU has no spare row left where it needs one: the memory stays bad.

    NVIDIA takes such a GPU back. Work on it ends with uncorrected errors sooner or later.
    """

    def judge(gpu: Gpu) -> Verdict:
        if gpu.remap_failure is None:
            return skip(f"{gpu.name} reports no row remapping")
        if gpu.remap_failure:
            others = ",".join(str(other.index) for other in node.gpu.gpus or () if not other.remap_failure)
            rest = f"CUDA_VISIBLE_DEVICES={others}  # in .env, until it is replaced"
            return fail(f"GPU {gpu.index} ({gpu.uuid or gpu.pci or '?'}): row remapping failed", rest)
        return ok("no remap has failed")

    return each_gpu(node, judge)


@check("gpu.on-bus", "no GPU has fallen off the bus", severity=Severity.FATAL, needs=GPU)
def on_bus(node: NodeFacts) -> Verdict:
    """Xid 79: the driver lost contact with the GPU over PCI Express. Power, heat or a loose card are the usual causes.

    Every program on that GPU is dead, and only a reboot (often a cold one) brings it back.
    """
    if (none := without_gpus(node)) is not None and not node.gpu.xids:
        return none
    if node.gpu.xids is None:
        return unknown("the kernel log was not read: it needs root (sudo dmesg)")
    lost = [line for _, number, line in node.gpu.xids if number == OFF_THE_BUS]
    return (
        fail(listed(lost, 2), "sudo poweroff  # then power on: a cold start") if lost else ok("kernel log: no Xid 79")
    )


@check("gpu.xid", "the kernel log holds no Xid of a broken GPU", needs=GPU)
def xid(node: NodeFacts) -> Verdict:
    """An Xid line is the driver's report of a GPU error. These numbers stand for memory, NVLink and firmware faults.

    Xids that an application causes by itself (13, 31, 43, 45) are named here and not counted.
    """
    if (none := without_gpus(node)) is not None and not node.gpu.xids:
        return none
    if node.gpu.xids is None:
        return unknown("the kernel log was not read: it needs root (sudo dmesg)")
    bad = [(pci, number, line) for pci, number, line in node.gpu.xids if number in FATAL_XIDS]
    if not bad:
        harmless = sorted({number for _, number, _ in node.gpu.xids} - {OFF_THE_BUS})
        said = f"; applications' own: {listed(map(str, harmless))}" if harmless else ""
        return ok("kernel log: no Xid of a broken GPU" + said)
    kinds = listed(dict.fromkeys(f"Xid {number} on {pci}" for pci, number, _ in bad))
    return fail(f"kernel log: {kinds}: {bad[-1][2]}", f"sudo nvidia-smi -r -i {bad[-1][0]}  # else reboot")


@check("gpu.sxid", "the kernel log holds no fatal NVSwitch error", needs=GPU)
def sxid(node: NodeFacts) -> Verdict:
    """An SXid line is an NVSwitch's error. After a fatal one the switch no longer carries NVLink traffic.

    Collectives inside the node then fail or hang until the fabric is brought up again.
    """
    if (none := without_gpus(node)) is not None:
        return none
    if node.gpu.sxids is None:
        return unknown("the kernel log was not read: it needs root (sudo dmesg)")
    bad = [line for line in node.gpu.sxids if re.search(r"(?<!non-)(?<!non )\bfatal\b", line, re.IGNORECASE)]
    if bad:
        return fail(listed(bad, 2), "sudo systemctl restart nvidia-fabricmanager  # and reset the GPUs; else reboot")
    return ok(f"kernel log: {len(node.gpu.sxids)} SXid line(s), none fatal")


@check("gpu.full-clocks", "no GPU is slowed by its hardware", severity=Severity.WARNING, needs=GPU)
def full_clocks(node: NodeFacts) -> Verdict:
    """The hardware slows a GPU for heat or for lack of power, often to a half and more.

    One slow GPU slows all ranks, because they wait for each other in every layer.
    """

    def judge(gpu: Gpu) -> Verdict:
        if gpu.throttle is None:
            return unknown(f"nvidia-smi did not say why GPU {gpu.index} is slowed")
        hard = [
            reason for reason in gpu.throttle if reason.lower().startswith("hw ") or "power brake" in reason.lower()
        ]
        if hard:
            mend = "check airflow and power cables"
            return warn(f"GPU {gpu.index}: {listed(hard)}", f"nvidia-smi -q -i {gpu.index} -d PERFORMANCE  # {mend}")
        return ok("no hardware slowdown is active")

    return each_gpu(node, judge)


@check(
    "gpu.temperature",
    "GPUs are well below the temperature that slows them",
    severity=Severity.WARNING,
    needs=("gpu", "machine"),
)
def temperature(node: NodeFacts) -> Verdict:
    """Within five degrees of its own limit a GPU is about to slow down; the limit is the one the GPU reports."""

    def judge(gpu: Gpu) -> Verdict:
        if gpu.temperature_c is None:
            return unknown(f"nvidia-smi did not say the temperature of GPU {gpu.index}")
        if gpu.slowdown_c is None:
            return skip("GB10 reports no limit" if is_spark(node) else f"{gpu.name} reports no limit")
        said = f"GPU {gpu.index}: {gpu.temperature_c} C, slows at {gpu.slowdown_c} C"
        if gpu.temperature_c > gpu.slowdown_c - NEAR_SLOWDOWN:
            return warn(said, "nvidia-smi -q -d TEMPERATURE,POWER  # check fans and air filters")
        return ok(said)

    return each_gpu(node, judge)


CHECKS: tuple[Check[NodeFacts], ...] = (
    ecc_uncorrected,
    ecc_corrected,
    rows_remapped,
    remap_possible,
    on_bus,
    xid,
    sxid,
    full_clocks,
    temperature,
)
