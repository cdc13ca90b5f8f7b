"""Group ``cross``: what must be alike, or must differ, on all nodes. Judged on several nodes together."""

from collections.abc import Callable, Iterable

from shoal.checks.base import Check, Scope, Severity, Status, Verdict, check, fail, ok, skip, unknown, warn
from shoal.checks.views import active_hcas, env
from shoal.facts.node import Fleet, NodeFacts
from shoal.log import MASK, is_secret

CROSS = Scope.CROSS_NODE
Read = Callable[[NodeFacts], object]
SAME_IMAGE = "use one image on every node: shoal checks the digests"
# Differ between nodes by their nature; what hubs and shells set is nobody's business here.
PER_NODE = {
    "VLLM_HOST_IP", "NCCL_IB_HCA", "NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "UCX_NET_DEVICES", "TP_SOCKET_IFNAME",
    "RAY_MODE", "RAY_ADDRESS", "SHOAL_NODE_NAME", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "NCCL_HOSTID",
    "NCCL_DEBUG_FILE", "SHOAL_NUM_GPUS", "NCCL_IB_GID_INDEX",
}  # fmt: skip
COMPARED = ("NCCL_", "GLOO_", "UCX_", "VLLM_", "RAY_", "SHOAL_", "TORCH_")


def several(fleet: Fleet) -> Verdict | None:
    """The verdict where there is nothing to compare."""
    return skip("one node") if len(fleet.nodes) < 2 else None


def alike(fleet: Fleet, read: Read) -> tuple[dict[str, list[str]], list[str]]:
    """Value -> the nodes that have it, and the nodes of which it is not known."""
    values: dict[str, list[str]] = {}
    silent = []
    for node in fleet.nodes:
        value = read(node)
        if value is None:
            silent.append(node.name)
        else:
            values.setdefault(str(value), []).append(node.name)
    return values, silent


def same(fleet: Fleet, read: Read, fix: str, status: Status = Status.FAIL) -> Verdict:
    """OK where all nodes have one value; where some are silent, that is said."""
    if (alone := several(fleet)) is not None:
        return alone
    values, silent = alike(fleet, read)
    said = "; ".join(f"{', '.join(names)}: {value or '(none)'}" for value, names in values.items())
    if len(values) > 1:
        return status, said, fix
    if not values or silent:
        return unknown(f"not known of {', '.join(silent)}" + (f"; {said}" if said else ""))
    return ok(next(iter(values)) or "none anywhere")


def _same(
    name: str,
    title: str,
    about: str,
    read: Read,
    fix: str,
    *,
    needs: tuple[str, ...],
    severity: Severity = Severity.FATAL,
) -> Check[Fleet]:
    """A check that one value is alike on all nodes."""
    status = Status.WARN if severity is Severity.WARNING else Status.FAIL

    def judge(fleet: Fleet) -> Verdict:
        return same(fleet, read, fix, status)

    return Check(name, title, judge, severity, CROSS, needs, about)


def _models(node: NodeFacts) -> str | None:
    gpus = node.gpu.gpus
    return None if gpus is None else ", ".join(sorted({gpu.name for gpu in gpus}))


def _images(node: NodeFacts) -> str | None:
    name = env(node, "SHOAL_IMAGE")
    found = [item.config for item in node.docker.images or () if not name or item.name == name]
    return found[0] if name and found else None


def _hca_count(node: NodeFacts) -> int | None:
    return None if node.rdma.devices is None else len(active_hcas(node))


def _layers(node: NodeFacts) -> str | None:
    layers = {
        port.link_layer for item in active_hcas(node) for port in item.ports if port.is_active and port.link_layer
    }
    return None if node.rdma.devices is None else ", ".join(sorted(layers))


def _rates(node: NodeFacts) -> str | None:
    rates = [port.rate_gbps for item in active_hcas(node) for port in item.ports if port.is_active and port.rate_gbps]
    return None if node.rdma.devices is None else ", ".join(f"{rate:g}" for rate in sorted(rates, reverse=True))


def _first_two(version: str | None) -> str | None:
    return version and ".".join(version.split(".")[:2])


SAME: tuple[Check[Fleet], ...] = (
    _same("cross.nccl", "NCCL is the same on every node",
          "Ranks with different NCCL refuse each other, or hang: its wire format is its own.",
          lambda node: node.stack.nccl, SAME_IMAGE, needs=("stack",)),
    _same("cross.torch", "torch is the same on every node",
          "Each rank runs its own copy of the model's code: with another torch it computes something else.",
          lambda node: node.stack.torch, SAME_IMAGE, needs=("stack",)),
    _same("cross.vllm", "vLLM is the same on every node",
          "The head sends its workers objects that only the same vLLM can read.",
          lambda node: node.stack.vllm, SAME_IMAGE, needs=("stack",)),
    _same("cross.ray", "Ray is the same on every node",
          "Ray refuses a node of another version, after it has tried for a while.",
          lambda node: node.stack.ray, SAME_IMAGE, needs=("stack",)),
    _same("cross.python", "Python is the same on every node",
          "Ray refuses a node with another Python: its objects are pickled.",
          lambda node: node.stack.python, SAME_IMAGE, needs=("stack",)),
    _same("cross.transformers", "transformers is the same on every node",
          "Configuration and tokenizer of a model are read by it, on each node.",
          lambda node: node.stack.transformers, SAME_IMAGE, needs=("stack",), severity=Severity.WARNING),
    _same("cross.driver", "the NVIDIA driver is the same on every node",
          "Different drivers may offer different features (P2P, NVLS, cuMem), and NCCL chooses by rank.",
          lambda node: node.gpu.driver, "install the same driver everywhere, and reboot", needs=("gpu",),
          severity=Severity.WARNING),
    _same("cross.cuda", "CUDA is the same on every node",
          "A rank with an older CUDA lacks kernels that the others use.",
          lambda node: _first_two(node.stack.cuda_runtime), SAME_IMAGE, needs=("stack",), severity=Severity.WARNING),
    _same("cross.image", "the image is the same on every node",
          "A tag says nothing about content. What is compared is the digest of the image's configuration.",
          _images, "docker pull IMAGE on every node, or hand one image to all", needs=("docker", "env")),
    _same("cross.architecture", "processors are of one architecture",
          "An image for x86_64 does not run on aarch64; Ray and vLLM do not mix them.",
          lambda node: node.machine.architecture, "put nodes of one architecture together", needs=("machine",)),
    _same("cross.kernel", "the kernel is the same on every node",
          "RDMA, GPU driver and container limits are the kernel's. A fault on one node only is often its kernel.",
          lambda node: node.machine.kernel, "update all nodes to one kernel", needs=("machine",),
          severity=Severity.WARNING),
    _same("cross.ofed", "the RDMA stack is the same on every node",
          "NVIDIA's OFED and the kernel's own drivers differ in counters, in defaults, and in what they can do.",
          lambda node: node.machine.ofed, "use OFED on all nodes, or on none", needs=("machine",),
          severity=Severity.WARNING),
    _same("cross.gpu-model", "GPUs are of one model",
          "Tensor parallelism gives every rank the same work and memory: the smallest GPU decides for all.",
          _models, "put nodes with the same GPUs together", needs=("gpu",), severity=Severity.WARNING),
    _same("cross.gpu-count", "every node has the same number of GPUs",
          "With tensor parallelism inside a node and pipeline between nodes, a node with fewer GPUs has no place.",
          lambda node: None if node.gpu.gpus is None else len(node.gpu.gpus), "set SHOAL_NUM_GPUS alike on all nodes",
          needs=("gpu",), severity=Severity.WARNING),
    _same("cross.hca-count", "every node has the same number of active HCAs",
          "NCCL 2.30 says \"Detected mixed local Net device counts\" and refuses; older ones may hang.",
          _hca_count, "give NCCL_IB_HCA as many HCAs on every node", needs=("rdma",), severity=Severity.ERROR),
    _same("cross.hca-rate", "HCAs have the same rate on every node",
          "A collective is as fast as its slowest link.",
          _rates, "rdma link; ethtool INTERFACE   # cable, FEC, switch port", needs=("rdma",),
          severity=Severity.WARNING),
    _same("cross.link-layer", "all nodes have one kind of link",
          "An InfiniBand port and a RoCE port cannot talk. NCCL takes both when nobody tells it otherwise.",
          _layers, "name the HCAs of one kind in NCCL_IB_HCA, with = in front", needs=("rdma",)),
    _same("cross.traffic-class", "the traffic class is the same on every node",
          "Packets of one direction would be lossless, and those of the other dropped.",
          lambda node: None if node.env is None else env(node, "NCCL_IB_TC"), "set NCCL_IB_TC alike everywhere",
          needs=("env",), severity=Severity.ERROR),
    _same("cross.token-mode", "all nodes ask for Ray's token, or none",
          "A node without the token is refused by the head, after half a minute.",
          lambda node: None if node.env is None else env(node, "RAY_AUTH_MODE"), "RAY_AUTH_MODE=token on every node",
          needs=("env",), severity=Severity.ERROR),
)  # fmt: skip


def unique(fleet: Fleet, read: Callable[[NodeFacts], Iterable[str] | None], fix: str) -> Verdict:
    """OK where no value is on two nodes."""
    if (alone := several(fleet)) is not None:
        return alone
    owners: dict[str, list[str]] = {}
    known = False
    for node in fleet.nodes:
        values = read(node)
        known = known or values is not None
        for value in set(values or ()):
            owners.setdefault(value, []).append(node.name)
    shared = {value: names for value, names in owners.items() if len(names) > 1}
    if shared:
        said = "; ".join(f"{value} on {', '.join(names)}" for value, names in sorted(shared.items())[:5])
        return fail(said, fix)
    return ok(f"{len(owners)} values") if known else unknown("it was read on no node")


def _ips(node: NodeFacts) -> list[str] | None:
    if node.net.netdevs is None or all(dev.addresses is None for dev in node.net.netdevs):
        return None
    inner = {"loopback", "bridge", "virtual"}
    return [
        item.ip
        for dev in node.net.netdevs
        if dev.kind not in inner
        for item in dev.addresses or ()
        if item.scope == "global"
    ]


@check("cross.addresses", "no address is on two nodes", severity=Severity.FATAL, scope=CROSS, needs=("net",))
def addresses(fleet: Fleet) -> Verdict:
    """Two machines with one address answer in turns: connections break, and Ray takes one node for another."""
    return unique(fleet, _ips, "ip -br address   # on both, then give one of them another")


@check(
    "cross.host-ips", "every node has a VLLM_HOST_IP of its own", severity=Severity.FATAL, scope=CROSS, needs=("env",)
)
def host_ips(fleet: Fleet) -> Verdict:
    """A copied .env keeps the other node's address: the second node then takes the first one's place in Ray."""
    known = [node for node in fleet.nodes if env(node, "VLLM_HOST_IP")]
    if not known:
        return skip("VLLM_HOST_IP is set on no node")
    return unique(
        fleet,
        lambda node: [env(node, "VLLM_HOST_IP")] if env(node, "VLLM_HOST_IP") else None,
        "correct VLLM_HOST_IP in one node's .env",
    )


@check("cross.macs", "no hardware address is on two nodes", severity=Severity.FATAL, scope=CROSS, needs=("net",))
def macs(fleet: Fleet) -> Verdict:
    """Cloned machines share MAC addresses, and a switch sends the packets of both to one."""

    def read(node: NodeFacts) -> list[str] | None:
        devs = node.net.netdevs
        return (
            None
            if devs is None
            else [dev.mac for dev in devs if dev.mac and dev.kind in {"physical", "infiniband"} and dev.mac.strip("0:")]
        )

    return unique(fleet, read, "give the clone another MAC address")


@check("cross.guids", "no RDMA device's GUID is on two nodes", severity=Severity.FATAL, scope=CROSS, needs=("rdma",))
def guids(fleet: Fleet) -> Verdict:
    """The subnet manager and NCCL tell HCAs apart by their GUID. Cloned virtual functions have one in common."""

    def read(node: NodeFacts) -> list[str] | None:
        devices = node.rdma.devices
        return (
            None
            if devices is None
            else [item.node_guid for item in devices if (item.node_guid or "").strip("0:") and item.node_guid]
        )

    return unique(fleet, read, "set another GUID: ip link set DEVICE vf N node_guid GUID")


@check("cross.hostnames", "every node has a name of its own", scope=CROSS, needs=("machine",))
def hostnames(fleet: Fleet) -> Verdict:
    """NCCL takes ranks of one host name, on one boot, for ranks of one machine: it tries shared memory between them."""
    return unique(
        fleet,
        lambda node: [node.machine.hostname] if node.machine.hostname else None,
        "sudo hostnamectl set-hostname NAME",
    )


@check(
    "cross.machine-ids",
    "every node has a machine id of its own",
    severity=Severity.WARNING,
    scope=CROSS,
    needs=("machine",),
)
def machine_ids(fleet: Fleet) -> Verdict:
    """Cloned machines share /etc/machine-id: DHCP may give both one address, and logs of both look like one's."""
    status, said, fix = unique(
        fleet,
        lambda node: [node.machine.machine_id] if node.machine.machine_id else None,
        "sudo rm /etc/machine-id && sudo systemd-machine-id-setup, then reboot",
    )
    return (Status.WARN if status is Status.FAIL else status), said, fix


@check("cross.reachable", "every node answers", severity=Severity.FATAL, scope=CROSS)
def reachable(fleet: Fleet) -> Verdict:
    """A node that cannot be asked cannot be judged, and will not join."""
    if not fleet.unreachable:
        return ok(f"{len(fleet.nodes)} node(s)")
    said = "; ".join(f"{name}: {why}" for name, why in fleet.unreachable.items())
    return fail(said, f"ssh {next(iter(fleet.unreachable))} true   # must work without a question")


@check("cross.clock", "the nodes' clocks agree", scope=CROSS, needs=("machine",))
def clocks(fleet: Fleet) -> Verdict:
    """Logs of two nodes can only be put in order where their clocks agree; tokens and certificates depend on it too."""
    if (alone := several(fleet)) is not None:
        return alone
    known = {node.name: node.machine.clock_offset for node in fleet.nodes if node.machine.clock_offset is not None}
    if len(known) < 2:
        return unknown("clocks were not compared: a capture has no common moment")
    span = max(known.values()) - min(known.values())
    early, late = min(known, key=lambda name: known[name]), max(known, key=lambda name: known[name])
    said = f"{late} is {span:.1f} s ahead of {early}"
    mend = "sudo timedatectl set-ntp true   # on every node"
    return ok(f"within {span:.1f} s") if span <= 1 else warn(said, mend) if span <= 30 else fail(said, mend)


@check("cross.models", "model files are the same on every node", severity=Severity.FATAL, scope=CROSS, needs=("stack",))
def models(fleet: Fleet) -> Verdict:
    """Each rank reads its part of the weights from its own disk. A copy that is not whole fails late, or answers
    nonsense.
    """
    if (alone := several(fleet)) is not None:
        return alone
    if all(node.stack.models is None for node in fleet.nodes):
        return unknown("no model folder was looked at")
    copies: dict[str, dict[tuple[int, str | None], list[str]]] = {}
    for node in fleet.nodes:
        for model in node.stack.models or ():
            copies.setdefault(model.path, {}).setdefault((model.size, model.index_digest), []).append(node.name)
    broken = [
        f"{node.name}: {model.path} lacks {model.missing[0]}"
        for node in fleet.nodes
        for model in node.stack.models or ()
        if model.missing
    ]
    differ = [
        f"{path}: " + " / ".join(f"{', '.join(names)} {size} bytes" for (size, _), names in kinds.items())
        for path, kinds in copies.items()
        if len(kinds) > 1
    ]
    mend = "copy the model again to the node that differs: rsync -a --checksum"
    return fail("; ".join((broken + differ)[:4]), mend) if broken or differ else ok(f"{len(copies)} model(s)")


@check(
    "cross.environment",
    "NCCL, Ray and vLLM are set alike on every node",
    severity=Severity.WARNING,
    scope=CROSS,
    needs=("env",),
)
def environment(fleet: Fleet) -> Verdict:
    """Only names of devices, interfaces and addresses differ between nodes. Everything else must be one."""
    if (alone := several(fleet)) is not None:
        return alone
    known = [node for node in fleet.nodes if node.env is not None]
    if len(known) < 2:
        return unknown("the environment was not read on two nodes: env")
    names = {name for node in known for name in node.env or () if name.startswith(COMPARED) and name not in PER_NODE}
    differ = [name for name in sorted(names) if len({env(node, name) for node in known}) > 1]
    if not differ:
        return ok(f"{len(names)} variables")
    said = "; ".join(f"{name}: " + ", ".join(_shown(node, name) for node in known) for name in differ[:4])
    return warn(said, f"set {differ[0]} alike on every node")


def _shown(node: NodeFacts, name: str) -> str:
    value = env(node, name)
    return f"{node.name} {MASK if value and is_secret(name) else value or '(not set)'}"


@check(
    "cross.device-names", "device names of all nodes are known", severity=Severity.INFO, scope=CROSS, needs=("rdma",)
)
def device_names(fleet: Fleet) -> Verdict:
    """Where HCAs are called differently, NCCL_IB_HCA must be each node's own: never copy the head's to all."""
    status, said, fix = same(
        fleet,
        lambda node: None if node.rdma.devices is None else ", ".join(item.name for item in active_hcas(node)),
        "",
    )
    return (status, said, fix) if status is not Status.FAIL else ok(f"{said}: NCCL_IB_HCA is each node's own")


@check("cross.gid-index", "a pinned GID index is not shared by different tables", scope=CROSS, needs=("env", "rdma"))
def gid_index(fleet: Fleet) -> Verdict:
    """Slot 3 of one node may be slot 5 of the next. One number for all then gives errno 22 or 110 at connect."""
    if (alone := several(fleet)) is not None:
        return alone
    pins = {node.name: int(value) for node in fleet.nodes if (value := env(node, "NCCL_IB_GID_INDEX")).isdigit()}
    if not pins:
        return skip("no GID index is pinned")
    wrong = [text for node in fleet.nodes if node.name in pins for text in _slot(node, pins[node.name])]
    if wrong:
        return fail("; ".join(wrong[:4]), "remove NCCL_IB_GID_INDEX: NCCL 2.21 and newer look for the slot")
    return ok(", ".join(f"{name}: {value}" for name, value in pins.items()))


def _slot(node: NodeFacts, index: int) -> Iterable[str]:
    for item in active_hcas(node):
        for port in item.ports:
            if port.link_layer != "Ethernet" or port.gids is None:
                continue
            gid = next((gid for gid in port.gids if gid.index == index), None)
            if gid is None or gid.is_zero or not gid.ipv4 or gid.type == "IB/RoCE v1":
                held = "is empty" if gid is None or gid.is_zero else f"holds {gid.ipv4 or gid.gid} ({gid.type})"
                yield f"{node.name}: slot {index} of {item.name} {held}"


FLEET_CHECKS: tuple[Check[Fleet], ...] = (
    reachable, *SAME, addresses, host_ips, macs, guids, hostnames, machine_ids, clocks, models, environment,
    device_names, gid_index,
)  # fmt: skip
