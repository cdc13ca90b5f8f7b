"""Group ``host``: the kernel, its modules, clocks, PCI settings and log."""

import re

from shoal.checks.base import Check, Severity, Verdict, check, fail, ok, skip, unknown, warn
from shoal.checks.views import MELLANOX, env, has_gpu, has_rdma, is_metal, is_node
from shoal.facts.node import NodeFacts

RDMA_MODULES = ("mlx5_core", "mlx5_ib", "ib_uverbs", "rdma_cm", "rdma_ucm")
GPU_MODULES = ("nvidia", "nvidia_uvm")
GOOD_CLOCKS = ("tsc", "arch_sys_counter", "kvm-clock", "hyperv_clocksource_tsc_page", "xen")
REDIRECT = {"ReqRedir", "CmpltRedir"}
OOM = re.compile(r"Out of memory: Kill|oom-kill:|Memory cgroup out of memory")
DENIED = re.compile(r'apparmor="DENIED"|avc:\s+denied')
WORRYING = re.compile(r"ray|vllm|nccl|infiniband|uverbs|nvidia|python", re.IGNORECASE)


@check("host.rdma-modules", "the kernel modules for RDMA are loaded", needs=("machine", "rdma"))
def rdma_modules(facts: NodeFacts) -> Verdict:
    """Without ib_uverbs no program reaches an HCA, without rdma_ucm none that uses the connection manager."""
    mellanox = [address for address, vendor in facts.rdma.cards.items() if vendor == MELLANOX]
    if not mellanox and not any(item.vendor == MELLANOX for item in facts.rdma.devices or ()):
        return skip("no NVIDIA (Mellanox) network card")
    if facts.machine.modules is None:
        return unknown("/proc/modules was not read: lsmod")
    missing = [name for name in RDMA_MODULES if name not in facts.machine.modules]
    if not missing:
        return ok(", ".join(RDMA_MODULES))
    return fail(f"not loaded: {', '.join(missing)} (/proc/modules)", f"sudo modprobe -a {' '.join(missing)}")


@check("host.gpu-modules", "the kernel modules for GPUs are loaded", needs=("machine", "gpu"))
def gpu_modules(facts: NodeFacts) -> Verdict:
    """CUDA needs nvidia_uvm besides nvidia: without it, cuInit fails although nvidia-smi answers."""
    if not has_gpu(facts):
        return skip("no NVIDIA GPU")
    if facts.machine.modules is None:
        return unknown("/proc/modules was not read: lsmod")
    missing = [name for name in GPU_MODULES if name not in facts.machine.modules]
    if not missing:
        return ok(", ".join(GPU_MODULES))
    return fail(f"not loaded: {', '.join(missing)} (/proc/modules)", f"sudo modprobe -a {' '.join(missing)}")


@check(
    "host.iommu",
    "the IOMMU does not stand between GPU and HCA",
    severity=Severity.WARNING,
    needs=("machine", "gpu", "rdma"),
)
def iommu(facts: NodeFacts) -> Verdict:
    """With an IOMMU that translates, data from GPU to HCA take the way over the CPU's root complex, or fail."""
    if not has_gpu(facts) or not facts.rdma.devices:
        return skip("no GPU beside an RDMA device")
    mode = facts.machine.iommu
    if mode is None or is_metal(facts) is None:
        return unknown("/sys/kernel/iommu_groups was not read")
    if not is_metal(facts):
        return skip(f"a virtual machine ({facts.machine.virtual}): the IOMMU is needed there")
    if mode.startswith("DMA"):
        return warn(f"IOMMU mode is {mode}", "add iommu=pt to the kernel's command line, and reboot")
    return ok(f"IOMMU mode: {mode or 'off'}")


@check(
    "host.acs", "PCI bridges let GPU and HCA talk directly", severity=Severity.WARNING, needs=("machine", "gpu", "rdma")
)
def acs(facts: NodeFacts) -> Verdict:
    """ACS redirect sends peer-to-peer traffic up to the root complex. GPUDirect RDMA is then slow, or fails with
    status 4.
    """
    if not has_gpu(facts) or not facts.rdma.devices:
        return skip("no GPU beside an RDMA device")
    if is_metal(facts) is False:
        return skip("a virtual machine: ACS is the hypervisor's matter")
    if facts.machine.bridges is None:
        return unknown("ACS was not read: sudo lspci -vvv")
    on = [item.address for item in facts.machine.bridges if REDIRECT & set(item.acs)]
    if not on:
        return ok(f"no redirect on {len(facts.machine.bridges)} bridges")
    said = f"ACS redirect is on at {len(on)} bridges, {on[0]} the first"
    return warn(said, f"sudo setpci -s {on[0]} ECAP_ACS+6.w=0   # each; for good: in the BIOS")


@check(
    "host.numa-balancing",
    "the kernel does not move pages between NUMA nodes",
    severity=Severity.WARNING,
    needs=("machine", "gpu"),
)
def numa_balancing(facts: NodeFacts) -> Verdict:
    """Automatic NUMA balancing takes pages away for a moment to see who uses them: ranks stutter."""
    if not has_gpu(facts) or (facts.machine.numa_nodes or 1) < 2:
        return skip("no GPU, or one NUMA node")
    value = facts.machine.sysctls.get("kernel.numa_balancing")
    if value is None:
        return unknown("kernel.numa_balancing was not read")
    return ok("off") if value == "0" else warn("kernel.numa_balancing=1", "sudo sysctl -w kernel.numa_balancing=0")


@check("host.clock", "the clock is kept right", severity=Severity.WARNING, needs=("machine",))
def clock(facts: NodeFacts) -> Verdict:
    """Nobody can order the logs of two nodes whose clocks differ, and tokens and certificates expire early."""
    if facts.machine.clock_synchronised is None:
        return unknown("not told: timedatectl")
    if facts.machine.clock_synchronised:
        return ok("synchronised")
    said = "the clock is not synchronised (timedatectl)"
    return warn(said, "sudo timedatectl set-ntp true   # or install chrony") if is_node(facts) else skip("no node")


@check("host.clocksource", "the kernel reads a fast clock", severity=Severity.WARNING, needs=("machine",))
def clocksource(facts: NodeFacts) -> Verdict:
    """With hpet or acpi_pm each look at the clock is a trip over a bus: threads that poll become slow."""
    source = facts.machine.clocksource
    if source is None:
        return unknown("current_clocksource was not read")
    return ok(source) if source in GOOD_CLOCKS else warn(source, "add tsc=reliable to the kernel's command line")


@check("host.governor", "processors run at full speed", severity=Severity.INFO, needs=("machine",))
def governor(facts: NodeFacts) -> Verdict:
    """A governor that saves power adds latency to each token; the machine's owner may want it so."""
    name = facts.machine.governor
    if name is None:
        return skip("no frequency scaling here")
    return ok(
        name if name == "performance" else f"{name}; for the lowest latency: sudo cpupower frequency-set -g performance"
    )


@check("host.hugepages", "transparent huge pages do not stall", severity=Severity.INFO, needs=("machine",))
def hugepages(facts: NodeFacts) -> Verdict:
    """`always` may stop a process while pages are put together; `madvise` leaves the choice to programs."""
    mode = facts.machine.transparent_hugepages
    return unknown("not read") if mode is None else ok(mode)


@check("host.reboot", "no reboot is waited for", severity=Severity.WARNING, needs=("machine",))
def reboot(facts: NodeFacts) -> Verdict:
    """After an update of kernel or driver, the programs on disk no longer fit the modules in memory."""
    wanted = facts.machine.reboot_required
    if wanted is None:
        return unknown("/var/run/reboot-required was not looked for")
    return warn("/var/run/reboot-required is there", "sudo reboot") if wanted else ok("none asked for")


@check("host.stuck", "no process hangs in the kernel", severity=Severity.WARNING, needs=("machine",))
def stuck(facts: NodeFacts) -> Verdict:
    """A process in state D waits for a device that does not answer, and no signal ends it: often a GPU or a mount."""
    found = facts.machine.stuck
    if found is None:
        return unknown("/proc was not read")
    hanging = [item for item in found if item.state == "D"]
    if len(hanging) > 2:
        words = ", ".join(f"{item.name} ({item.pid})" for item in hanging[:4])
        return warn(f"{len(hanging)} processes in state D: {words}", f"sudo cat /proc/{hanging[0].pid}/stack")
    zombies = len(found) - len(hanging)
    if zombies > 100:
        return warn(f"{zombies} zombies", "ps -eo ppid,stat | awk '$2~/^Z/' | sort | uniq -c   # whose children")
    return ok(f"{len(hanging)} in state D, {zombies} zombies")


@check("host.oom", "the kernel has ended nothing for want of memory", severity=Severity.WARNING, needs=("machine",))
def oom(facts: NodeFacts) -> Verdict:
    """A rank that the OOM killer ended leaves no words of its own; the kernel's log has them."""
    log = facts.machine.kernel_log
    if log is None:
        return unknown("the kernel's log was not read: sudo dmesg")
    lines = [line for line in log if OOM.search(line)]
    return warn(lines[-1].strip()[:200], "free -h; then give ranks less, or the machine more") if lines else ok("none")


@check("host.denials", "no security module refuses what the engine does", severity=Severity.WARNING, needs=("machine",))
def denials(facts: NodeFacts) -> Verdict:
    """AppArmor and SELinux refuse with "Permission denied", and name themselves in the kernel's log only."""
    log = facts.machine.kernel_log
    if log is None:
        return unknown("the kernel's log was not read: sudo dmesg")
    lines = [line for line in log if DENIED.search(line) and WORRYING.search(line)]
    fix = "security_opt: [apparmor:unconfined] in Compose; for SELinux: sudo ausearch -m avc"
    return warn(lines[-1].strip()[:200], fix) if lines else ok("none that concerns it")


@check(
    "host.moving-gids",
    "no temporary IPv6 address shifts the GID table",
    severity=Severity.WARNING,
    needs=("net", "rdma", "env"),
)
def moving_gids(facts: NodeFacts) -> Verdict:
    """Each address of a RoCE interface takes a slot of the GID table. One that comes and goes moves a pinned index."""
    if not has_rdma(facts):
        return skip("no RDMA device") if has_rdma(facts) is False else unknown("RDMA devices were not read")
    if not env(facts, "NCCL_IB_GID_INDEX"):
        return skip("no GID index is pinned")
    rails = {name for item in facts.rdma.devices or () for name in item.netdevs or ()}
    known = [dev for dev in facts.net.netdevs or () if dev.name in rails and dev.addresses is not None]
    if not known:
        return unknown("addresses were not read: ip address")
    shifting = [
        dev.name
        for dev in known
        if sum(not item.is_ipv4 and item.scope == "global" for item in dev.addresses or ()) > 1
    ]
    if not shifting:
        return ok(", ".join(sorted(dev.name for dev in known)))
    said = f"{shifting[0]} has several global IPv6 addresses, and NCCL_IB_GID_INDEX is pinned"
    return warn(said, f"unset NCCL_IB_GID_INDEX; or: sudo sysctl -w net.ipv6.conf.{shifting[0]}.use_tempaddr=0")


CHECKS: tuple[Check[NodeFacts], ...] = (
    rdma_modules, gpu_modules, iommu, acs, numa_balancing, clock, clocksource, governor, hugepages, reboot, stuck, oom,
    denials, moving_gids,
)  # fmt: skip
