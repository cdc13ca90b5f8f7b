"""Group ``container``: what a container may do and see, and the Docker engine that would start one."""

from shoal.checks.base import Check, Scope, Severity, Verdict, check, fail, ok, skip, unknown, warn
from shoal.checks.views import has_gpu, has_rdma
from shoal.facts.meminfo import GIB, gib
from shoal.facts.node import NodeFacts

DEVICES = "devices: [/dev/infiniband] in Compose, or --device=/dev/infiniband"
HOST = "not in a container"
CONTAINER = Scope.CONTAINER


def _outside(facts: NodeFacts) -> Verdict | None:
    """The verdict where this is no container, or nobody knows."""
    if facts.container.inside is None:
        return unknown("whether this is a container was not read")
    return None if facts.container.inside else skip(HOST)


@check(
    "container.kind", "the kind of container is known", severity=Severity.INFO, scope=CONTAINER, needs=("container",)
)
def kind(facts: NodeFacts) -> Verdict:
    """A container has its own limits, devices and network: what is true of the host may not be true inside."""
    inside = facts.container.inside
    return unknown("not read") if inside is None else ok(f"inside {inside}" if inside else "a host")


@check(
    "container.connection-manager",
    "the RDMA connection manager is there",
    severity=Severity.WARNING,
    scope=CONTAINER,
    needs=("container", "rdma"),
)
def rdma_cm(facts: NodeFacts) -> Verdict:
    """UCX, NIXL and perftest's -R connect through /dev/infiniband/rdma_cm. NCCL itself does without."""
    if not facts.rdma.devices:
        return skip("no RDMA device")
    if facts.rdma.nodes is None:
        return unknown("/dev/infiniband was not read")
    if "rdma_cm" in facts.rdma.nodes:
        return ok("/dev/infiniband/rdma_cm")
    return warn("no /dev/infiniband/rdma_cm", DEVICES if facts.container.inside else "sudo modprobe rdma_ucm")


@check(
    "container.ipc-lock",
    "the container may lock memory",
    severity=Severity.FATAL,
    scope=CONTAINER,
    needs=("container", "rdma", "machine"),
)
def ipc_lock(facts: NodeFacts) -> Verdict:
    """Memory for RDMA is locked. Either the limit is off, or the process may pass it (CAP_IPC_LOCK)."""
    if (outside := _outside(facts)) is not None:
        return outside
    if not facts.rdma.devices:
        return skip("no RDMA device")
    if facts.container.capabilities is None:
        return unknown("capabilities were not read: /proc/self/status")
    limit = facts.machine.limits.get("Max locked memory")
    if "IPC_LOCK" in facts.container.capabilities or (limit and limit.soft is None):
        return ok("CAP_IPC_LOCK, or no limit on locked memory")
    return fail("no CAP_IPC_LOCK, and locked memory is limited", "cap_add: [IPC_LOCK] and ulimits: {memlock: -1}")


@check("container.nice", "ranks may place their memory", severity=Severity.INFO, scope=CONTAINER, needs=("container",))
def nice(facts: NodeFacts) -> Verdict:
    """Without CAP_SYS_NICE, NCCL cannot put host buffers beside their GPU: "cuMem host allocations do not appear to be
    working". It then does without.
    """
    if (outside := _outside(facts)) is not None:
        return outside
    if facts.container.capabilities is None:
        return unknown("capabilities were not read: /proc/self/status")
    has = "SYS_NICE" in facts.container.capabilities
    return ok("CAP_SYS_NICE" if has else "no CAP_SYS_NICE; cap_add: [SYS_NICE] gives it")


@check("container.host-network", "the container has the host's network", scope=CONTAINER, needs=("container", "rdma"))
def host_network(facts: NodeFacts) -> Verdict:
    """A GID belongs to a network interface. In a network namespace of its own a container sees GIDs it may not use:
    EINVAL, or errno 19 at connect.
    """
    if (outside := _outside(facts)) is not None:
        return outside
    if facts.container.host_network is None:
        return unknown("network namespaces could not be compared: /proc/1/ns/net")
    if facts.container.host_network:
        return ok("the host's network namespace")
    said = "a network namespace of its own"
    mend = "network_mode: host in Compose, or --network=host"
    return fail(said, mend) if facts.rdma.devices else warn(said, mend)


@check(
    "container.gpus", "GPUs are visible inside", severity=Severity.FATAL, scope=CONTAINER, needs=("container", "gpu")
)
def gpus(facts: NodeFacts) -> Verdict:
    """Without the NVIDIA runtime the container starts all the same, and vLLM says "no CUDA device"."""
    if (outside := _outside(facts)) is not None:
        return outside
    if not facts.gpu.cards:
        return skip("no NVIDIA card on the PCI bus") if facts.gpu.cards is not None else unknown("PCI was not read")
    if facts.gpu.gpus:
        return ok(f"{len(facts.gpu.gpus)} of {len(facts.gpu.cards)} cards")
    mend = "runtime: nvidia and deploy.resources.reservations.devices in Compose, or --gpus all"
    return fail(f"{len(facts.gpu.cards)} NVIDIA card(s) on the bus, and none is seen by nvidia-smi", mend)


@check(
    "container.sysfs",
    "the PCI tree is visible inside",
    severity=Severity.WARNING,
    scope=CONTAINER,
    needs=("container",),
)
def sysfs(facts: NodeFacts) -> Verdict:
    """NCCL reads from /sys which HCA is near which GPU. Where it cannot, it guesses, and may cross the machine."""
    if (outside := _outside(facts)) is not None:
        return outside
    if facts.container.pci_visible is None:
        return unknown("/sys/bus/pci/devices was not read")
    return (
        ok("/sys/bus/pci/devices")
        if facts.container.pci_visible
        else warn("/sys/bus/pci/devices is empty", "mount /sys read-only into the container")
    )


@check(
    "container.rdma-core",
    "the RDMA libraries are installed",
    severity=Severity.FATAL,
    scope=CONTAINER,
    needs=("container", "rdma"),
)
def rdma_core(facts: NodeFacts) -> Verdict:
    """NCCL loads libibverbs.so.1 at run time. Where it is missing, NCCL says so at INFO only, and uses sockets."""
    if has_rdma(facts) is False:
        return skip("no RDMA device")
    if facts.container.libibverbs is None:
        return unknown("libibverbs was not looked for: ldconfig -p")
    if facts.container.libibverbs:
        return ok(facts.container.libibverbs)
    return fail("no libibverbs.so.1", "apt install libibverbs1 ibverbs-providers   # in the image")


@check(
    "container.seccomp",
    "the system call filter is known",
    severity=Severity.INFO,
    scope=CONTAINER,
    needs=("container",),
)
def seccomp(facts: NodeFacts) -> Verdict:
    """Docker's filter refuses set_mempolicy and some others, which NCCL reports as cuMem and NUMA troubles."""
    if (outside := _outside(facts)) is not None:
        return outside
    mode, profile = facts.container.seccomp, facts.container.apparmor
    return (
        unknown("/proc/self/status was not read")
        if mode is None
        else ok(f"seccomp {mode}, AppArmor {profile or 'off'}")
    )


@check(
    "container.rootless",
    "root inside is root outside",
    severity=Severity.WARNING,
    scope=CONTAINER,
    needs=("container",),
)
def rootless(facts: NodeFacts) -> Verdict:
    """In a user namespace, limits cannot be raised and devices belong to nobody: RDMA needs both."""
    if (outside := _outside(facts)) is not None:
        return outside
    if facts.container.user_namespace is None:
        return unknown("/proc/self/uid_map was not read")
    mend = "run it under the system's Docker engine rather than a rootless one"
    return (
        warn("a user namespace (/proc/self/uid_map)", mend)
        if facts.container.user_namespace
        else ok("no user namespace")
    )


@check("container.rdma-limit", "the control group does not limit RDMA", scope=CONTAINER, needs=("container", "rdma"))
def rdma_limit(facts: NodeFacts) -> Verdict:
    """The rdma controller may cap handles and objects of an HCA: the next queue pair then fails with ENOMEM."""
    if not facts.rdma.devices:
        return skip("no RDMA device")
    limits = facts.container.rdma_max
    if limits is None:
        return unknown("rdma.max of the control group was not read")
    capped = [line.strip() for line in limits.splitlines() if any(map(_is_number, line.split()[1:]))]
    if not capped:
        return ok("no limit")
    return fail(f"rdma.max: {capped[0]}", "raise it: echo 'DEVICE hca_handle=max hca_object=max' > rdma.max")


def _is_number(word: str) -> bool:
    return word.partition("=")[2].isdigit()


@check(
    "container.memory-limit",
    "the control group leaves memory enough",
    severity=Severity.WARNING,
    scope=CONTAINER,
    needs=("container",),
)
def memory_limit(facts: NodeFacts) -> Verdict:
    """A container that passes its limit is ended by the kernel, and its ranks with it."""
    if (outside := _outside(facts)) is not None:
        return outside
    most = facts.container.memory_max
    if most is None:
        return ok("no limit was read")
    said = f"memory.max: {gib(most)}"
    return ok(said) if most >= 8 * GIB else warn(f"{said}, expected at least 8 GiB", "raise mem_limit, or remove it")


@check("container.docker", "the Docker engine answers", needs=("docker",))
def docker(facts: NodeFacts) -> Verdict:
    """The containers of a node are started by it, and started again after a reboot."""
    if not facts.docker.installed:
        return skip("no docker program") if facts.docker.installed is False else unknown("not asked: docker info")
    if facts.docker.running is None:
        return unknown("not asked: docker info")
    if facts.docker.running:
        return ok(f"version {facts.docker.version or 'unknown'}")
    trouble = facts.docker.trouble or "it does not answer"
    if "permission denied" in trouble.lower():
        return unknown(f"{trouble[:160]}: sudo usermod -aG docker $USER, then log in again")
    return warn(trouble[:200], "sudo systemctl start docker")


@check(
    "container.nvidia-runtime", "Docker can hand GPUs to a container", severity=Severity.FATAL, needs=("docker", "gpu")
)
def nvidia_runtime(facts: NodeFacts) -> Verdict:
    """Without the NVIDIA Container Toolkit, `runtime: nvidia` is refused, or the container starts without GPUs."""
    if not has_gpu(facts) or not facts.docker.running:
        return skip("no NVIDIA GPU, or no Docker engine that answers")
    if facts.docker.runtimes is None:
        return unknown("runtimes were not read: docker info")
    if "nvidia" in facts.docker.runtimes or facts.docker.cdi:
        return ok("the runtime nvidia" if "nvidia" in facts.docker.runtimes else "by CDI")
    mend = "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
    return fail(f"runtimes: {', '.join(facts.docker.runtimes)}", mend)


@check(
    "container.toolkit", "the NVIDIA Container Toolkit is installed", severity=Severity.WARNING, needs=("docker", "gpu")
)
def toolkit(facts: NodeFacts) -> Verdict:
    """It brings the driver's libraries into containers; its program also writes Docker's configuration."""
    if not has_gpu(facts) or not facts.docker.installed:
        return skip("no NVIDIA GPU, or no Docker")
    if facts.docker.toolkit is None:
        return unknown("not asked: nvidia-ctk --version")
    return (
        ok(facts.docker.toolkit)
        if facts.docker.toolkit
        else warn("no nvidia-ctk", "apt install nvidia-container-toolkit")
    )


@check("container.compose", "Docker Compose is installed", severity=Severity.WARNING, needs=("docker",))
def compose(facts: NodeFacts) -> Verdict:
    """deploy/worker and deploy/head are started by `docker compose up -d`; docker-compose 1.29 does it as well."""
    if not facts.docker.installed:
        return skip("no docker program")
    if facts.docker.compose is None:
        return unknown("not asked: docker compose version")
    if facts.docker.compose:
        return ok(facts.docker.compose)
    return warn(
        "neither `docker compose` nor docker-compose", "apt install docker-compose-v2, or docker-compose-plugin"
    )


CHECKS: tuple[Check[NodeFacts], ...] = (
    kind, rdma_cm, ipc_lock, nice, host_network, gpus, sysfs, rdma_core, seccomp, rootless,
    rdma_limit, memory_limit, docker, nvidia_runtime, toolkit, compose,
)  # fmt: skip
