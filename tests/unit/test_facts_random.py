"""Nothing that a machine could answer makes the parsers raise."""

import string
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from shoal.facts.node import NodeFacts
from shoal.facts.read import node_facts
from shoal.host.snapshot import Reply, Snapshot

# Paths and command lines that the parsers look at, and pieces of which random ones are made.
PLACES = (
    "/sys/class/infiniband/mlx5_0/ports/1/state",
    "/sys/class/infiniband/mlx5_0/ports/1/rate",
    "/sys/class/infiniband/mlx5_0/ports/1/lid",
    "/sys/class/infiniband/mlx5_0/ports/1/gids/0",
    "/sys/class/infiniband/mlx5_0/ports/1/gids/99999999999999999999",
    "/sys/class/infiniband/mlx5_0/ports/1/gid_attrs/types/0",
    "/sys/class/infiniband/mlx5_0/ports/x/counters/port_xmit_data",
    "/sys/class/infiniband/mlx5_0/device/uevent",
    "/sys/class/infiniband/mlx5_0/device/net/eth0/mtu",
    "/sys/class/infiniband_verbs/uverbs0/ibdev",
    "/sys/class/net/eth0/flags",
    "/sys/class/net/eth0/mtu",
    "/sys/class/net/eth0/speed",
    "/sys/class/net/eth0/type",
    "/sys/class/net/eth0/statistics/rx_errors",
    "/sys/class/net/eth0/qos/trust",
    "/sys/class/net/eth0/ecn/roce_np/enable/3",
    "/sys/class/net/eth0.100/uevent",
    "/sys/bus/pci/devices/0000:01:00.0/class",
    "/sys/bus/pci/devices/0000:01:00.0/vendor",
    "/sys/devices/system/cpu/online",
    "/sys/kernel/iommu_groups/0/type",
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/pids.max",
    "/proc/net/fib_trie",
    "/proc/net/route",
    "/proc/net/tcp",
    "/proc/net/arp",
    "/proc/net/if_inet6",
    "/proc/net/vlan/config",
    "/proc/sys/net/ipv4/ip_local_port_range",
    "/proc/sys/net/ipv4/conf/eth0.100/rp_filter",
    "/proc/self/limits",
    "/proc/self/status",
    "/proc/self/uid_map",
    "/proc/meminfo",
    "/proc/modules",
    "/proc/uptime",
    "/proc/cpuinfo",
    "/proc/driver/nvidia/version",
    "/etc/hosts",
    "/etc/os-release",
    "/etc/nccl.conf",
)
COMMANDS = (
    "nvidia-smi",
    "nvidia-smi -q",
    "nvidia-smi -L",
    "nvidia-smi --query-gpu=index,name,pci.bus_id --format=csv,noheader",
    "nvidia-smi --query-compute-apps=pid,process_name,used_memory --format=csv",
    "nvidia-smi nvlink -s",
    "nvidia-smi nvlink -e",
    "ip -j addr",
    "ip a",
    "ip -j route",
    "ip route",
    "ip neigh",
    "ibv_devinfo -v",
    "ibstat",
    "rdma link",
    "rdma -j system",
    "ibdev2netdev",
    "show_gids",
    "ethtool eth0",
    "ethtool -S eth0",
    "ethtool --show-fec eth0",
    "mlnx_qos -i eth0",
    "dcb pfc show dev eth0",
    "docker info",
    "docker info --format '{{json .}}'",
    "docker image inspect vllm",
    "docker images",
    "docker compose version",
    "df -PTB1",
    "ulimit -a",
    "ulimit -l",
    "free -b",
    "ps -eo pid,stat,user,comm",
    "lspci -vvv",
    "lspci -Dnn",
    "lsmod",
    "sysctl -a",
    "dmesg",
    "ss -ltn",
    "chronyc tracking",
    "timedatectl show",
    "getent hosts node",
    "uname -a",
    "env",
    "pip list",
    "python3 -c 'import torch; print(torch.__version__)'",
    "shoal-probe versions",
    "shoal-probe models",
)
# What such files hold, whole and torn, among noise.
WORDS = (
    *(
        "4: ACTIVE",
        "5:",
        "400 Gb/sec (4X NDR)",
        "N/A (no PMA)",
        "0x15b3",
        "0x1003",
        "-1",
        "",
        "\n",
        "\0",
        "max",
        "[]",
        "{}",
    ),
    *(
        "fe80:0000:0000:0000:0000:0000:0000:0001",
        "::ffff:c0a8:6401",
        "c0a86401",
        "00000000",
        "RoCE v2",
        "dscp",
        "0-3,5-",
    ),
    *(
        '[{"ifname": "eth0", "addr_info": [{"local": "1.2.3.4", "prefixlen": 99}], "flags": 3, "linkinfo": []}]',
        "[" * 3000,
    ),
    *(
        "2: eth0@if3: <UP> mtu 9000 state UP",
        "    inet 10.0.0.1/99 scope global",
        "hca_id: mlx5_0",
        "\tport: 1",
        "CA 'x'",
    ),
    *(
        "GPU 00000000:00:06.0",
        "    FB Memory Usage",
        "        Total : 9 MiB",
        "index, name",
        "0, H200, 1",
        "Max locked memory",
    ),
    *(
        "default via 10.0.0.1 dev eth0 metric x",
        "Filesystem 1-blocks Used",
        "PID STAT USER COMMAND",
        "12 D root x",
        "\uff19\uff19",
        "²",
    ),
    *(
        "NVRM: Xid (PCI:0000:01:00): 79, x",
        "   |-- 10.0.0.1\n      /32 host LOCAL",
        "1" * 5000,
        '{"packages": 1, "python": []}',
    ),
)
text = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from(WORDS), max_size=6).map("\n".join),
    st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join),
    st.binary(max_size=40).map(lambda data: data.decode("utf-8", "replace")),
)
names = st.text(alphabet=string.ascii_lowercase + "/._-0 \0é:", max_size=20)
paths = st.one_of(
    st.sampled_from(PLACES), names.map(lambda name: f"/{name}"), names.map(lambda name: f"/sys/class/net/{name}")
)
replies = st.builds(Reply, st.sampled_from((0, 1, 3, 124, 127)), text, text)
snapshots = st.builds(
    Snapshot,
    st.just("node"),
    st.dictionaries(paths, text, max_size=12),
    st.dictionaries(paths, paths, max_size=4),
    st.dictionaries(paths, st.sampled_from(("EINVAL", "EACCES", "EIO")), max_size=3),
    st.dictionaries(st.one_of(st.sampled_from(COMMANDS), text), replies, max_size=12),
    st.lists(paths, max_size=4).map(tuple),
)


@given(snapshots)
def test_no_snapshot_makes_the_parsers_raise(snapshot: Snapshot) -> None:
    """Random bytes at known and unknown places become facts, and facts that can be asked."""
    facts = node_facts(snapshot)
    assert isinstance(facts, NodeFacts)
    for device in facts.rdma.devices or ():
        for port in device.ports:
            assert all(
                isinstance(gid.is_zero or gid.is_link_local or gid.ipv4, bool | str | None) for gid in port.gids or ()
            )
    for dev in facts.net.netdevs or ():
        assert all(item.network for item in dev.addresses or ())


@given(st.dictionaries(st.sampled_from(PLACES), text), st.dictionaries(st.sampled_from(COMMANDS), text))
def test_each_known_place_may_hold_anything(files: Mapping[str, str], said: Mapping[str, str]) -> None:
    """The same where only known places are filled, with commands that all end well."""
    node_facts(Snapshot("node", files, replies={line: Reply(0, out) for line, out in said.items()}, looked=("/",)))
