"""Group ``host``: limits, memory, disk, names and ports of a machine."""

from shoal.checks.base import Check, Severity, Verdict, check, fail, ok, skip, unknown, warn, worst
from shoal.checks.views import active_hcas, env, has_gpu, has_rdma, is_node, is_spark
from shoal.facts.meminfo import GIB, gib
from shoal.facts.net import NetFacts
from shoal.facts.node import NodeFacts

LOCKED, FILES, PROCESSES = "Max locked memory", "Max open files", "Max processes"
PORTS = (
    (6379, "Ray's GCS", "RAY_ADDRESS"),
    (8000, "the API", "SHOAL_API_PORT"),
    (8700, "agent", "SHOAL_AGENT_PORT"),
    (8701, "supervisor", "SHOAL_SERVE_PORT"),
)
FEW_PORTS = 10_000
NO_RDMA = "no RDMA device, so nothing is pinned"


@check("host.memlock", "RDMA may lock all the memory it needs", severity=Severity.FATAL, needs=("machine", "rdma"))
def memlock(facts: NodeFacts) -> Verdict:
    """An HCA can only use memory that stays where it is. With systemd's 8 MiB, `ibv_reg_mr` fails with ENOMEM.

    NCCL then gives up, or falls back to sockets without a word.
    """
    if has_rdma(facts) is False:
        return skip(NO_RDMA)
    limit = facts.machine.limits.get(LOCKED)
    if limit is None:
        return unknown("the limit was not read: ulimit -l")
    if limit.soft is None:
        return ok(f"{LOCKED}: unlimited")
    if "IPC_LOCK" in (facts.container.capabilities or ()):
        return ok(f"{LOCKED}: {gib(limit.soft)}, and the process may pass it (CAP_IPC_LOCK)")
    said = f"{LOCKED}: {gib(limit.soft)}, expected unlimited (/proc/self/limits)"
    mend = "LimitMEMLOCK=infinity in the unit, `ulimits: memlock: -1` in Compose, or in /etc/security/limits.d"
    return fail(said, mend) if limit.soft < GIB else warn(said, mend)


@check("host.open-files", "processes may open 65,536 files", severity=Severity.WARNING, needs=("machine",))
def open_files(facts: NodeFacts) -> Verdict:
    """Ray holds a descriptor for each connection of each worker. At 1,024 it ends with "Too many open files"."""
    limit = facts.machine.limits.get(FILES)
    if limit is None:
        return unknown("the limit was not read: ulimit -n")
    most = limit.hard if limit.hard is not None else 1 << 30
    said = f"{FILES}: {limit.soft or 'unlimited'}, at most {limit.hard or 'unlimited'} (/proc/self/limits)"
    if most >= 65536:  # Ray raises the soft limit by itself
        return ok(said)
    return warn(f"{said}, expected 65536", "ulimit -n 65536, or LimitNOFILE=1048576 in the unit")


@check("host.process-limit", "enough processes may be started", needs=("container",))
def process_limit(facts: NodeFacts) -> Verdict:
    """A control group with a limit of 2,048 (podman's default) ends Ray in the middle: its workers are many threads."""
    limited, most = facts.container.pids_limited, facts.container.pids_max
    if limited is None:
        return unknown("pids.max of the control group was not read")
    if not limited or (most or 0) > 2048:
        return ok(f"pids.max: {most if limited else 'max'}")
    return fail(f"pids.max is {most}, expected more than 2048", "--pids-limit=-1, or pids_limit: -1 in Compose")


@check("host.shm", "shared memory is large enough", needs=("machine",))
def shm(facts: NodeFacts) -> Verdict:
    """Ray's object store, vLLM's message queues and NCCL between ranks of one machine live in /dev/shm.

    Docker's own 64 MiB end with "failed to extend /dev/shm/nccl-*" or a bus error.
    """
    total = facts.machine.shm_total
    if total is None:
        return unknown("the size of /dev/shm was not read: df /dev/shm")
    if total >= GIB:
        return ok(f"/dev/shm: {gib(total)}")
    said = f"/dev/shm has {gib(total)}, expected at least 1 GiB"
    return fail(said, "ipc: host, or shm_size: 16g in Compose; on a host: mount -o remount,size=50% /dev/shm")


@check("host.shm-free", "shared memory is not full", severity=Severity.WARNING, needs=("machine",))
def shm_free(facts: NodeFacts) -> Verdict:
    """What crashed engines leave in /dev/shm stays until a reboot, and the next start finds no room."""
    total, free = facts.machine.shm_total, facts.machine.shm_free
    if not total or free is None:
        return unknown("the size of /dev/shm was not read: df /dev/shm")
    said = f"/dev/shm: {gib(free)} of {gib(total)} free"
    return (
        ok(said) if free > total / 10 else warn(said, "ls -lt /dev/shm   # psm_* and nccl-* of dead processes can go")
    )


@check("host.memory", "memory is free", severity=Severity.WARNING, needs=("machine", "gpu"))
def memory(facts: NodeFacts) -> Verdict:
    """Weights pass through host memory when they are loaded. On GB10 that memory is the GPU's as well."""
    free, total = facts.machine.memory.get("MemAvailable"), facts.machine.memory.get("MemTotal")
    if free is None or not total:
        return unknown("/proc/meminfo was not read")
    said = f"{gib(free)} of {gib(total)} available"
    need = total / 2 if is_spark(facts) else min(4 * GIB, total / 2)
    if free >= need:
        return ok(said)
    drop = "sync; echo 3 | sudo tee /proc/sys/vm/drop_caches   # the page cache counts as used on GB10"
    return warn(
        f"{said}, expected {gib(need)}", drop if is_spark(facts) else "ps aux --sort=-rss | head   # who has it"
    )


@check("host.swap", "no swap is used beside unified memory", severity=Severity.WARNING, needs=("machine", "gpu"))
def swap(facts: NodeFacts) -> Verdict:
    """On GB10 the GPU's memory is the machine's: what is swapped out is fetched back at every token."""
    if not is_spark(facts):
        return skip("memory is not shared with the GPU")
    total, free = facts.machine.memory.get("SwapTotal"), facts.machine.memory.get("SwapFree")
    if total is None or free is None:
        return unknown("/proc/meminfo was not read")
    return ok("none used") if total == free else warn(f"{gib(total - free)} of swap in use", "sudo swapoff -a")


@check("host.disk", "disks have room for models and caches", severity=Severity.FATAL, needs=("machine",))
def disk(facts: NodeFacts) -> Verdict:
    """A download or a compile cache that runs out of room fails halfway, and Ray stops placing work at 95 %."""
    if not facts.machine.disks:
        return unknown("no file system was read: df")

    def one(path: str, total: int, free: int) -> Verdict:
        said = f"{path}: {gib(free)} of {gib(total)} free"
        if free < GIB:
            return fail(said, f"du -xh {path} | sort -h | tail   # what fills it")
        tight = free < 10 * GIB or free < total * 0.05
        return warn(said, f"du -xh {path} | sort -h | tail   # what fills it") if tight else ok(said)

    return worst(one(item.path, item.total, item.free) for item in facts.machine.disks)


@check("host.hostname", "the machine's name leads to an address that others reach", needs=("machine", "env"))
def hostname(facts: NodeFacts) -> Verdict:
    """Gloo publishes the address that the host's own name resolves to. With Debian's 127.0.1.1 the peers connect to
    themselves, and `connectFullMesh` fails.
    """
    addresses = facts.machine.hostname_addresses
    if addresses is None:
        return unknown(f"not resolved: getent ahosts {facts.machine.hostname or '$(hostname)'}")
    said = f"{facts.machine.hostname} is {', '.join(addresses) or 'unknown to the resolver'}"
    if addresses and not all(item.startswith("127.") or item == "::1" for item in addresses):
        return ok(said)
    if env(facts, "GLOO_SOCKET_IFNAME"):
        return ok(f"{said}; Gloo is told its interface (GLOO_SOCKET_IFNAME)")
    if env(facts, "VLLM_HOST_IP").startswith(("127.", "::1")):
        return ok(f"{said}; so is the node's own address: all nodes are on this machine")
    mend = f"put this line into /etc/hosts: ADDRESS {facts.machine.hostname or 'NAME'}   # its fabric address"
    # A machine with GPUs and no fabric may well serve alone.
    joins = bool(facts.rdma.devices) or bool(env(facts, "RAY_MODE"))
    return fail(said, mend) if joins else warn(said, mend)


@check("host.rp-filter", "answers may come by another rail", severity=Severity.WARNING, needs=("net", "rdma"))
def rp_filter(facts: NodeFacts) -> Verdict:
    """With strict reverse-path filtering the kernel drops packets that come by another interface than it would answer
    by: so it is with two rails in one subnet.
    """
    rails = {device for item in active_hcas(facts) for device in item.netdevs or ()}
    if len(rails) < 2:
        return skip("fewer than two rails")
    general = facts.net.rp_filter_all
    known = [
        (dev.name, max(dev.rp_filter, general or 0))
        for dev in facts.net.netdevs or ()
        if dev.name in rails and dev.rp_filter is not None
    ]
    if not known:
        return unknown("net.ipv4.conf.*.rp_filter was not read")
    strict = [name for name, value in known if value == 1]
    if not strict:
        return ok("rp_filter is 0 or 2 on every rail")
    return warn(f"rp_filter is 1 on {', '.join(strict)}", f"sudo sysctl -w net.ipv4.conf.{strict[0]}.rp_filter=2")


def _shared_subnets(net: NetFacts, names: set[str]) -> set[str]:
    seen: dict[str, set[str]] = {}
    for dev in net.netdevs or ():
        if dev.name in names:
            for item in dev.ipv4:
                seen.setdefault(item.network, set()).add(dev.name)
    return {name for names in seen.values() if len(names) > 1 for name in names}


@check(
    "host.arp",
    "rails in one subnet answer for their own address only",
    severity=Severity.WARNING,
    needs=("net", "rdma"),
)
def arp(facts: NodeFacts) -> Verdict:
    """Linux answers ARP for any of its addresses on any interface. With two rails in one subnet, traffic of one then
    goes to the other.
    """
    rails = {device for item in active_hcas(facts) for device in item.netdevs or ()}
    shared = _shared_subnets(facts.net, rails)
    if not shared:
        return skip("no two rails share a subnet")
    names = sorted(shared)
    devs = [dev for name in names if (dev := facts.net.netdev(name))]
    if any(dev.arp_ignore is None and facts.net.arp_ignore_all is None for dev in devs):
        return unknown("net.ipv4.conf.*.arp_ignore was not read")
    loose = [dev.name for dev in devs if not max(dev.arp_ignore or 0, facts.net.arp_ignore_all or 0)]
    if not loose:
        return ok(f"arp_ignore is on for {', '.join(names)}")
    said = f"{', '.join(names)} share a subnet, and arp_ignore is 0 on {', '.join(loose)}"
    return warn(said, "sudo sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2")


@check("host.port-range", "enough ephemeral ports are left", needs=("net",))
def port_range(facts: NodeFacts) -> Verdict:
    """NCCL, Gloo and Ray connect every rank to every other from ephemeral ports."""
    span = facts.net.port_range
    if span is None:
        return unknown("/proc/sys/net/ipv4/ip_local_port_range was not read")
    said = f"ip_local_port_range is {span[0]} to {span[1]}"
    if span[1] - span[0] >= FEW_PORTS:
        return ok(said)
    return fail(f"{said}: {span[1] - span[0]} ports", "sudo sysctl -w net.ipv4.ip_local_port_range='32768 60999'")


@check("host.firewall", "no firewall stands between the nodes", severity=Severity.WARNING, needs=("net",))
def firewall(facts: NodeFacts) -> Verdict:
    """Ray, Gloo and NCCL use ephemeral ports both ways, and RoCE v2 UDP 4791. A default of DROP shows as a hang."""
    rules = facts.net.firewall
    if rules is None:
        return unknown("the rules were not read: sudo nft list ruleset, or sudo iptables -S")
    closed = [line.strip() for line in rules.splitlines() if _closes(line)]
    if not closed:
        return ok("no chain for incoming traffic drops by default")
    mend = "allow the fabric's subnet: sudo iptables -I INPUT -s SUBNET -j ACCEPT   # TCP, and UDP 4791 for RoCE v2"
    return warn(f"incoming traffic is dropped by default: {closed[0]}", mend)


def _closes(line: str) -> bool:
    words = line.replace(";", " ").split()
    return words[:3] == ["-P", "INPUT", "DROP"] or ({"hook", "input", "policy"} <= set(words) and "drop" in words)


@check("host.ports-free", "the ports of a node are free", severity=Severity.FATAL, needs=("net", "stack", "env"))
def ports_free(facts: NodeFacts) -> Verdict:
    """Ray and vLLM end at once where another program has their port, with words that name a socket and no owner."""
    if facts.net.listening is None:
        return unknown("listening sockets were not read: ss -ltn")
    if facts.stack.processes:
        return skip(f"a cluster runs here: {facts.stack.processes[0].kind}, pid {facts.stack.processes[0].pid}")
    taken = {port for _, port in facts.net.listening}
    clash = [(port, what, name) for port, what, name in PORTS if port in taken]
    if not clash:
        return ok(", ".join(str(port) for port, _, _ in PORTS))
    said = ", ".join(f"{port} ({what})" for port, what, _ in clash)
    mend = f"sudo ss -ltnp 'sport = :{clash[0][0]}'   # who has it; or choose another: {clash[0][2]}"
    return fail(f"taken: {said}", mend) if is_node(facts) else warn(f"taken: {said}", mend)


@check("host.wireless", "the way to other machines is a cable", severity=Severity.WARNING, needs=("machine", "env"))
def wireless(facts: NodeFacts) -> Verdict:
    """Without VLLM_HOST_IP, vLLM takes the address of the default route. Over Wi-Fi, a cluster is formed there."""
    if facts.machine.default_route_wireless is None:
        return unknown("the default route was not read: ip route")
    if not facts.machine.default_route_wireless:
        return ok("the default route is no Wi-Fi")
    if address := env(facts, "VLLM_HOST_IP"):
        return ok(f"the default route is Wi-Fi, and VLLM_HOST_IP={address} is set")
    said = "the default route is Wi-Fi, and VLLM_HOST_IP is not set"
    return warn(said, "VLLM_HOST_IP=ADDRESS   # ip -br address") if is_node(facts) else skip("no node")


@check("host.gpu-count", "nobody hides GPUs from processes", severity=Severity.INFO, needs=("gpu", "env"))
def hidden_gpus(facts: NodeFacts) -> Verdict:
    """CUDA_VISIBLE_DEVICES takes GPUs away from everything that is started with it, Ray's count included."""
    if not has_gpu(facts):
        return skip("no GPU")
    value = env(facts, "CUDA_VISIBLE_DEVICES")
    return ok(
        f"CUDA_VISIBLE_DEVICES={value}: only these of {len(facts.gpu.gpus or ())}" if value else "all are visible"
    )


CHECKS: tuple[Check[NodeFacts], ...] = (
    memlock, open_files, process_limit, shm, shm_free, memory, swap, disk, hostname, rp_filter, arp, port_range,
    firewall, ports_free, wireless, hidden_gpus,
)  # fmt: skip
