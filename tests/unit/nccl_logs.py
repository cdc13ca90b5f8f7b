"""NCCL's log as each version writes it, made from the formats of its sources, with the prefixes of every launcher."""

from collections.abc import Callable, Sequence

VERSIONS = ("2.18.3", "2.21.5", "2.23.4", "2.26.2", "2.27.7", "2.28.9", "2.30.7")


def after(version: str, first: str) -> bool:
    """Whether a version is ``first`` or newer."""
    return tuple(map(int, version.split("."))) >= tuple(map(int, first.split(".")))


def head(version: str, plugin: str = "") -> list[str]:
    """What stands before the network is chosen."""
    lines = ["cudaDriverVersion 13000"]
    colon = "Bootstrap: Using" if after(version, "2.23") else "Bootstrap : Using"
    lines.append(f"{colon} eth0:192.168.100.1<0>")
    if plugin:
        return lines
    if not after(version, "2.21"):
        return [
            *lines,
            (
                "NET/Plugin : Plugin load (libnccl-net.so) returned 2 : libnccl-net.so: cannot open shared object "
                "file: No such file or directory"
            ),
            "NET/Plugin : No plugin found, using internal implementation",
        ]
    if not after(version, "2.23"):
        return [
            *lines,
            (
                "NET/Plugin : dlerror=libnccl-net.so: cannot open shared object file: No such file or directory "
                "No plugin found (libnccl-net.so), using internal implementation"
            ),
        ]
    return [*lines, "NET/Plugin: Could not find: libnccl-net.so. Using internal network plugin."]


def devices(version: str, names: Sequence[str], layer: str, merged: str = "") -> list[str]:
    """NET/IB's list of devices."""
    lines = []
    if after(version, "2.27"):
        lines += [
            f"NET/IB: [{i}] {name}:uverbs{i}:1/{layer} provider=Mlx5 speed=200000 context=0x55d0 pciPath=/sys/devices/"
            f"pci0000:00/0000:0{i}:00.0 ar=0"
            for i, name in enumerate(names)
        ]
    if merged and after(version, "2.26"):
        lines.append(f"NET/IB : Made virtual device [{len(names)}] name={merged} speed=400000 ndevs=2")
    if merged and not after(version, "2.26"):
        inside = ", ".join(f"[{i}] {name}:1/{layer}" for i, name in enumerate(names))
        return [*lines, f"NET/IB : Using [0]={{{inside}}} [RO]; OOB eth0:192.168.100.1<0>"]
    listed = "".join(f" [{i}]{name}:1/{layer}" for i, name in enumerate(names))
    return [*lines, f"NET/IB : Using{listed} [RO]; OOB eth0:192.168.100.1<0>"]


def rank(
    version: str,
    *,
    network: str = "IB",
    names: Sequence[str] = ("mlx5_0",),
    layer: str = "RoCE",
    merged: str = "",
    gdr: bool = True,
    channels: bool = True,
    number: int = 0,
    env: Sequence[str] = (),
    extra: Sequence[str] = (),
) -> list[str]:
    """All lines of one rank of two on two nodes, without heads."""
    mode = "/GDRDMA(PCI)" if after(version, "2.26") else "/GDRDMA"
    word = "Enabled" if gdr else "Disabled"
    comm = "ncclCommInitRank comm" if after(version, "2.19") else "comm"
    net = "IB" if network == "IB" else network
    lines = [*head(version, network if network.startswith(("IBext", "AWS")) else ""), *env]
    if network.startswith("IBext"):
        lines += ["Plugin Path : /opt/hpcx/nccl_rdma_sharp_plugin/lib/libnccl-net.so", f"P2P plugin {network}"]
    if network.startswith("AWS"):
        lines += ["NET/OFI Initializing aws-ofi-nccl 1.9.1-aws", "NET/OFI Selected Provider is efa (found 4 nics)"]
    elif network == "Socket":
        lines += ["NET/IB : No device found.", "NET/Socket : Using [0]eth0:192.168.100.1<0>"]
    else:
        lines += devices(version, names, layer, merged)
    lines += [f"Using network {network}", *extra]
    lines.append(f"{comm} 0x55d0 rank {number} nranks 2 cudaDev 0 nvmlDev 0 busId 60 commId 0xdfd6 - Init START")
    if after(version, "2.22"):
        lines.append(f"comm 0x55d0 rank {number} nRanks 2 nNodes 2 localRanks 1 localRank 0 MNNVL 0")
    if network != "Socket" and not network.startswith("AWS"):
        lines += [f"NET/{net} : GPU Direct RDMA {word} for HCA {i} '{name}'" for i, name in enumerate(names)]
    lines.append(f"{comm} 0x55d0 rank {number} nranks 2 cudaDev 0 nvmlDev 0 busId 60 commId 0xdfd6 - Init COMPLETE")
    if channels:
        tail = mode if gdr and network != "Socket" else ""
        other = 1 - number
        lines += [f"Channel 0{c}/0 : {other}[0] -> {number}[0] [receive] via NET/{net}/0{tail}" for c in range(2)]
        lines += [f"Channel 0{c}/0 : {number}[0] -> {other}[0] [send] via NET/{net}/0{tail}" for c in range(2)]
        if network == "IB" and layer == "RoCE":
            lines.append(qp(version))
        lines.append("Connected all rings")
    return lines


def qp(version: str) -> str:
    """A queue pair to 192.168.100.1 over GID 3, as it lies in memory on a little-endian machine."""
    gid = "GID 3 (0/164A8C0FFFF0000)"
    if not after(version, "2.20"):
        return f"NET/IB: Dev 0 Port 1 qpn 302 mtu 5 {gid}"
    return f"NET/IB: NCCL Dev 0 IbDev 0 Port 1 qpn 302 mtu 5 {gid} fifoRkey=0x1fe fifoLkey=0x1fe"


def spoken(lines: Sequence[str], version: str, host: str = "node1", pid: int = 4711) -> list[str]:
    """Lines with NCCL's own heads; the version as each NCCL prints it; WARN where a line begins so."""
    out = [f"NCCL version {version}+cuda12.4"] if not after(version, "2.26") else []
    if after(version, "2.26"):
        out.append(f"{host}:{pid}:{pid} [0] NCCL INFO NCCL version {version}+cuda12.8")
    for line in lines:
        if line.startswith("WARN "):
            stamp = "[2026-11-23 01:54:39] " if after(version, "2.26") else ""
            out += ["", f"{stamp}{host}:{pid}:{pid + 9} [0] transport/net_ib.cc:1295 NCCL WARN {line[5:]}"]
        else:
            out.append(f"{host}:{pid}:{pid} [0] NCCL INFO {line}")
    return out


Prefix = Callable[[int, str], str]
PREFIXES: dict[str, Prefix] = {
    "plain": lambda _, line: line,
    "ray": lambda _, line: f"\x1b[36m(RayWorkerProc pid=4711, ip=10.0.0.2)\x1b[0m {line}",
    "ray-old": lambda _, line: f"(RayWorkerWrapper pid=4711, ip=10.0.0.2) {line}",
    "ray-task": lambda _, line: f"(pid=4711) {line}",
    "engine-and-ray": lambda _, line: f"(EngineCore_DP0 pid=12) (RayWorkerWrapper pid=4711) {line}",
    "vllm": lambda i, line: f"(Worker_TP0 pid=4711) INFO 11-23 05:41:{i % 60:02d} [x.py:1] {line}",
    "compose": lambda _, line: f"ray-worker  | {line}",
    "compose-time": lambda i, line: f"ray-worker-1  | 2026-11-24T22:55:{i % 60:02d}.123456789Z {line}",
    "kubectl": lambda _, line: f"[pod/vllm-0/vllm] {line}",
    "cri": lambda i, line: f"2026-11-24T22:55:{i % 60:02d}.123456789Z stdout F {line}",
    "journald": lambda i, line: f"Nov 24 22:55:{i % 60:02d} node1 shoal-agent[812]: {line}",
    "torchrun": lambda _, line: f"[default0]:{line}",
    "mpirun": lambda _, line: f"[1,0]<stdout>:{line}",
    "srun": lambda _, line: f"0: {line}",
    "pdsh": lambda _, line: f"10.0.0.2: {line}",
    "nccl-time": lambda i, line: f"[2026-11-23 01:54:{i % 60:02d}] {line}",
    "repeated": lambda _, line: f"{line}\x1b[32m [repeated 3x across cluster]\x1b[0m",
    "crlf": lambda _, line: f"{line}\r",
    "progress": lambda i, line: f"Loading: {i}%|#   |\r{line}",
}


def text(lines: Sequence[str], prefix: str = "plain") -> bytes:
    """A file of these lines."""
    return "".join(f"{PREFIXES[prefix](i, line)}\n" for i, line in enumerate(lines)).encode()
