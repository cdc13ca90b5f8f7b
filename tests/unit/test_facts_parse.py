"""What programs and the kernel really print becomes facts, whole values compared."""

from shoal.facts.container import Image
from shoal.facts.gpu import GpuProcess, NvLink
from shoal.facts.machine import Disk, Limit, PciBridge, Stuck
from shoal.facts.net import Address, Qos, Route
from shoal.facts.rdma import Gid, RdmaPort
from shoal.facts.read import node_facts
from shoal.facts.stack import RayProcess
from shoal.host.snapshot import Reply, Snapshot

MLX = "/sys/devices/pci0000:00/0000:01:00.0/infiniband/mlx5_0"
PORT = f"{MLX}/ports/1"
FUNCTION = "/sys/devices/pci0000:00/0000:01:00.0"
ETH = f"{FUNCTION}/net/enp1s0f0np0"
ROCE = Snapshot(
    "gx1",
    files={
        f"{MLX}/fw_ver": "28.45.4028\n",
        f"{MLX}/node_guid": "5c25:7303:00aa:bbcc\n",
        f"{PORT}/state": "4: ACTIVE",
        f"{PORT}/phys_state": "5: LinkUp\n",
        f"{PORT}/link_layer": "Ethernet\n",
        f"{PORT}/rate": "200 Gb/sec (2X NDR)\n",
        f"{PORT}/lid": "0x0\n",
        f"{PORT}/gids/0": "fe80:0000:0000:0000:5e25:73ff:feaa:bbcc\n",
        f"{PORT}/gids/3": "0000:0000:0000:0000:0000:ffff:c0a8:6401",
        f"{PORT}/gids/10": "0000:0000:0000:0000:0000:0000:0000:0000\n",
        f"{PORT}/gid_attrs/types/0": "IB/RoCE v1\n",
        f"{PORT}/gid_attrs/types/3": "RoCE v2\n",
        f"{PORT}/gid_attrs/ndevs/3": "enp1s0f0np0\n",
        f"{PORT}/counters/port_xmit_data": "12\n",
        f"{PORT}/counters/port_xmit_wait": "N/A (no PMA)\n",
        f"{FUNCTION}/vendor": "0x15b3\n",
        f"{FUNCTION}/current_link_speed": "32.0 GT/s PCIe\n",
        f"{FUNCTION}/current_link_width": "4\n",
        f"{FUNCTION}/numa_node": "-1\n",
        f"{ETH}/mtu": "9000\n",
        f"{ETH}/flags": "0x1003\n",
        f"{ETH}/operstate": "up\n",
        f"{ETH}/carrier": "1\n",
        f"{ETH}/speed": "200000\n",
        f"{ETH}/type": "1\n",
        f"{ETH}/qos/trust": "dscp\n",
        "/sys/class/infiniband_verbs/uverbs0/ibdev": "mlx5_0\n",
        "/dev/infiniband/rdma_cm": "",
        "/proc/sys/net/ipv4/conf/enp1s0f0np0/rp_filter": "2\n",
    },
    links={
        "/sys/class/infiniband/mlx5_0": "../../devices/pci0000:00/0000:01:00.0/infiniband/mlx5_0",
        "/sys/class/net/enp1s0f0np0": "../../devices/pci0000:00/0000:01:00.0/net/enp1s0f0np0",
        f"{MLX}/device": "../../../0000:01:00.0",
        f"{ETH}/device": "../../../0000:01:00.0",
        f"{FUNCTION}/driver": "../../../bus/pci/drivers/mlx5_core",
        f"{FUNCTION}/iommu_group": "../../../kernel/iommu_groups/14",
    },
    errors={f"{PORT}/gid_attrs/types/10": "EINVAL", "/dev/infiniband/uverbs0": "EACCES"},
    looked=("/sys/class/infiniband", "/sys/class/net"),
)


def told(replies: dict[str, str]) -> Snapshot:
    """A machine of which only commands are known."""
    return Snapshot("node", replies={line: Reply(0, out) for line, out in replies.items()})


def test_a_roce_device_from_sysfs() -> None:
    """State, rate without a line end, GIDs in order, errors of slots, a counter that the port does not have."""
    facts = node_facts(ROCE).rdma
    device = facts.device("mlx5_0")
    assert device is not None
    assert device.ports == (
        RdmaPort(
            1,
            state="ACTIVE",
            phys_state="LinkUp",
            link_layer="Ethernet",
            rate_gbps=200.0,
            rate_text="200 Gb/sec (2X NDR)",
            lid=0,
            gids=(
                Gid(0, "fe80:0000:0000:0000:5e25:73ff:feaa:bbcc", "IB/RoCE v1"),
                Gid(3, "0000:0000:0000:0000:0000:ffff:c0a8:6401", "RoCE v2", "enp1s0f0np0"),
                Gid(10, "0000:0000:0000:0000:0000:0000:0000:0000", error="EINVAL"),
            ),
            counters={"port_xmit_data": 12, "port_xmit_wait": None},
            hw_counters={},
        ),
    )
    assert (device.pci, device.netdevs, device.driver, device.numa_node) == (
        "0000:01:00.0",
        ("enp1s0f0np0",),
        "mlx5_core",
        -1,
    )
    assert (device.link_width, device.iommu_group, device.is_vf, device.uverbs) == (4, "14", False, "uverbs0")
    assert (facts.nodes, facts.unopenable) == (("rdma_cm", "uverbs0"), {"uverbs0": "EACCES"})


def test_an_interface_from_sysfs() -> None:
    """RUNNING is computed as the kernel does, and is not read from flags, which leave it out."""
    dev = node_facts(ROCE).net.netdev("enp1s0f0np0")
    assert dev is not None
    assert (dev.up, dev.running, dev.carrier, dev.operstate, dev.mtu, dev.speed_mbps) == (
        True,
        True,
        True,
        "up",
        9000,
        200000,
    )
    assert (dev.kind, dev.pci, dev.driver, dev.rp_filter, dev.qos) == (
        "physical",
        "0000:01:00.0",
        "mlx5_core",
        2,
        Qos(trust="dscp"),
    )
    assert dev.addresses is None


def test_nothing_looked_at_is_not_known() -> None:
    """An empty snapshot has no device list, which differs from an empty one."""
    facts = node_facts(Snapshot("node"))
    assert (facts.rdma.devices, facts.net.netdevs, facts.gpu.gpus, facts.env, facts.machine.modules) == (None,) * 5
    looked = node_facts(Snapshot("node", looked=("/sys",)))
    assert (looked.rdma.devices, looked.net.netdevs) == ((), ())


def test_addresses_are_the_same_by_json_text_and_proc() -> None:
    """Three ways to one interface with two addresses."""
    four, six = Address("192.168.100.1", 24), Address("fe80::1", 64, "link")
    json = (
        '[{"ifname":"eth1","flags":["UP"],"operstate":"UP","mtu":9000,"addr_info":['
        '{"family":"inet","local":"192.168.100.1","prefixlen":24,"scope":"global"},'
        '{"family":"inet6","local":"fe80::1","prefixlen":64,"scope":"link"}]}]'
    )
    text = (
        "3: eth1@if4: <BROADCAST,UP,LOWER_UP> mtu 9000 qdisc mq master bond0 state UP group default qlen 1000\n"
        "    link/ether 02:00:00:00:00:01 brd ff:ff:ff:ff:ff:ff\n"
        "    inet 192.168.100.1/24 brd 192.168.100.255 scope global noprefixroute eth1\n"
        "       valid_lft forever preferred_lft forever\n"
        "    inet6 fe80::1/64 scope link\n"
    )
    proc = Snapshot(
        "node",
        {
            "/sys/class/net/eth1/mtu": "9000",
            "/proc/net/fib_trie": "Main:\n  +-- 192.168.100.0/24 2 0 2\n     |-- 192.168.100.1\n"
            "        /32 host LOCAL\n",
            "/proc/net/route": "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n"
            "eth1\t0064A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n",
            "/proc/net/if_inet6": "fe800000000000000000000000000001 03 40 20 80     eth1\n",
        },
    )
    machines = [told({"ip -j addr show": json}), told({"/usr/sbin/ip a": text}), proc]
    found = [node_facts(machine).net.netdev("eth1") for machine in machines]
    assert [set(dev.addresses or ()) if dev else None for dev in found] == [{four, six}] * 3
    assert [(dev.mtu, dev.master, dev.running) for dev in found if dev] == [
        (9000, None, True),
        (9000, "bond0", True),
        (9000, None, None),
    ]


def test_routes_are_the_same_by_json_text_and_proc() -> None:
    """A default route and a connected network."""
    wanted = (Route("default", "eth0", "10.0.0.1", metric=100), Route("10.0.0.0/24", "eth0"))
    json = '[{"dst":"default","gateway":"10.0.0.1","dev":"eth0","metric":100},{"dst":"10.0.0.0/24","dev":"eth0"}]'
    text = "default via 10.0.0.1 dev eth0 metric 100\n10.0.0.0/24 dev eth0 scope link\n"
    proc = (
        "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
        "eth0 00000000 0100000A 0003 0 0 100 00000000 0 0 0\neth0 0000000A 00000000 0001 0 0 0 00FFFFFF 0 0 0\n"
    )
    assert node_facts(told({"ip -j route": json})).net.routes == wanted
    assert node_facts(told({"ip route show": text})).net.routes == wanted
    found = node_facts(Snapshot("node", {"/proc/net/route": proc})).net.routes
    assert found == (wanted[0], Route("10.0.0.0/24", "eth0", metric=0))


def test_flags_that_ip_did_not_tell() -> None:
    """An interface whose flags are missing is neither up nor down."""
    dev = node_facts(told({"ip -j addr": '[{"ifname": "eth1", "mtu": 9000}]'})).net.netdev("eth1")
    assert dev is not None
    assert (dev.mtu, dev.up, dev.carrier, dev.running) == (9000, None, None, None)


def test_rdma_programs_stand_in_for_sysfs() -> None:
    """``ibv_devinfo -v`` alone describes a device; with sysfs it adds the active MTU."""
    text = (
        "hca_id:\tmlx5_0\n\ttransport:\t\t\tInfiniBand (0)\n\tfw_ver:\t\t\t\t28.39.1002\n"
        "\tnode_guid:\t\t\ta088:c203:0012:3456\n"
        "\tphys_port_cnt:\t\t\t1\n\t\tport:\t1\n\t\t\tstate:\t\t\tPORT_ACTIVE (4)\n\t\t\tmax_mtu:\t\t4096 (5)\n"
        "\t\t\tactive_mtu:\t\t1024 (3)\n\t\t\tsm_lid:\t\t\t1\n\t\t\tport_lid:\t\t13\n\t\t\tlink_layer:\t\tInfiniBand\n"
        "\t\t\tGID[  0]:\t\tfe80:0000:0000:0000:a288:c203:0012:3456\n"
    )
    port = RdmaPort(
        1,
        state="ACTIVE",
        link_layer="InfiniBand",
        lid=13,
        sm_lid=1,
        active_mtu=1024,
        gids=(Gid(0, "fe80:0000:0000:0000:a288:c203:0012:3456"),),
    )
    device = node_facts(told({"ibv_devinfo -v": text})).rdma.device("mlx5_0")
    assert device is not None
    assert (device.fw_ver, device.node_guid, device.ports) == ("28.39.1002", "a088:c203:0012:3456", (port,))
    ibstat = "CA 'mlx5_1'\n\tFirmware version: 28.1\n\tPort 1:\n\t\tState: Initializing\n"
    ibstat += "\t\tPhysical state: LinkUp\n\t\tRate: 400\n"
    link = "link mlx5_1/1 state INIT physical_state LINK_UP netdev ib0 netdev_index 4\n"
    other = node_facts(told({"ibstat": ibstat, "rdma link show": link, "rdma system": "netns shared\n"})).rdma
    assert other.netns_mode == "shared"
    assert [(item.name, item.netdevs, item.ports) for item in other.devices or ()] == [
        ("mlx5_1", ("ib0",), (RdmaPort(1, state="INIT", phys_state="LinkUp", rate_gbps=400.0),))
    ]


def test_ethernet_by_its_programs() -> None:
    """Speed, FEC, counters, trust and PFC of an interface."""
    replies = {
        "ip -j link": '[{"ifname":"eth0","flags":[]}]',
        "ethtool eth0": "Settings for eth0:\n\tSpeed: 200000Mb/s\n",
        "ethtool -S eth0": "NIC statistics:\n     rx_prio3_pause: 7\n     rx_discards_phy: 0\n",
        "ethtool --show-fec eth0": "FEC parameters for eth0:\nActive FEC encoding: RS\n",
        "mlnx_qos -i eth0": "DCBX mode: OS controlled\nPriority trust state: dscp\nPFC configuration:\n"
        "\tpriority    0   1   2   3   4   5   6   7\n\tenabled     0   0   0   1   0   0   0   0   \n",
    }
    dev = node_facts(told(replies)).net.netdev("eth0")
    assert dev is not None
    assert (dev.speed_mbps, dev.fec, dev.ethtool) == (200000, "RS", {"rx_prio3_pause": 7, "rx_discards_phy": 0})
    assert dev.qos == Qos(trust="dscp", pfc=tuple(bit == 3 for bit in range(8)), dcbx="os")


def test_gpus_by_csv_with_any_columns() -> None:
    """A header or none, units or none."""
    head = "index, name, memory.total [MiB], ecc.errors.uncorrected.volatile.total\n0, NVIDIA H200, 143771 MiB, 3\n"
    bare = "NVIDIA GB10, [N/A], 00000001:01:00.0\n"
    one = node_facts(told({"nvidia-smi --query-gpu=index,name,memory.total,ecc.x --format=csv": head})).gpu.gpus
    other = node_facts(
        told({"nvidia-smi --query-gpu=name,memory.total,pci.bus_id --format=csv,noheader": bare})
    ).gpu.gpus
    assert [(gpu.index, gpu.name, gpu.memory_mib, gpu.ecc_uncorrected) for gpu in one or ()] == [
        (0, "NVIDIA H200", 143771, 3)
    ]
    assert [(gpu.index, gpu.name, gpu.memory_mib, gpu.pci) for gpu in other or ()] == [
        (0, "NVIDIA GB10", None, "0001:01:00.0")
    ]


def test_nvlinks_and_processes() -> None:
    """An inactive link, a link's errors, and who holds memory."""
    asked = "nvidia-smi --query-compute-apps=pid,process_name,used_memory --format=csv,noheader,nounits"
    facts = node_facts(
        told(
            {
                "nvidia-smi -L": "GPU 0: NVIDIA H100 (UUID: GPU-1)\n",
                "nvidia-smi nvlink -s": "GPU 0: NVIDIA H100 (UUID: GPU-1)\n"
                "\t Link 0: 26.562 GB/s\n\t Link 1: <inactive>\n",
                "nvidia-smi nvlink -e": "GPU 0: NVIDIA H100 (UUID: GPU-1)\n\t Link 0: Replay Errors: 2\n"
                "\t Link 0: CRC Errors: 1\n",
                asked: "7, vllm, 9\n",
            }
        )
    ).gpu
    assert [gpu.nvlinks for gpu in facts.gpus or ()] == [
        (NvLink(0, active=True, gbps=26.562, errors=3), NvLink(1, active=False))
    ]
    assert facts.processes == (GpuProcess(7, "vllm", 9),)


def test_a_driver_that_does_not_answer() -> None:
    """The program's own words are kept, and it counts as installed."""
    words = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n"
    facts = node_facts(Snapshot("node", replies={"nvidia-smi -q": Reply(9, words)})).gpu
    assert (facts.gpus, facts.installed, facts.trouble) == (None, True, words.strip())
    absent = node_facts(Snapshot("node", replies={"nvidia-smi -q": Reply(127)})).gpu
    assert (absent.gpus, absent.installed, absent.trouble) == (None, False, "")


def test_limits_by_the_kernel_and_by_a_shell() -> None:
    """Bytes either way; ``ulimit`` counts in KiB."""
    kernel = "Limit                     Soft Limit           Hard Limit           Units     \n"
    kernel += "Max locked memory         8388608              unlimited            bytes     \n"
    assert node_facts(Snapshot("n", {"/proc/self/limits": kernel})).machine.limits == {
        "Max locked memory": Limit(8388608, None)
    }
    shell = "max locked memory (kbytes, -l) 8192\nopen files (-n) 20000\ncpu time (seconds, -t) unlimited\n"
    assert node_facts(told({"bash -c 'ulimit -a'": shell})).machine.limits == {
        "Max locked memory": Limit(8388608, 8388608),
        "Max open files": Limit(20000, 20000),
    }
    assert node_facts(told({"ulimit -l": "unlimited\n"})).machine.limits == {"Max locked memory": Limit(None, None)}


def test_disks_in_any_unit() -> None:
    """Bytes, KiB and sizes for people; /dev/shm apart."""
    exact = "Filesystem Type 1-blocks Used Available Capacity Mounted on\ntmpfs tmpfs 2048 0 1024 0% /dev/shm\n"
    human = "Filesystem      Size  Used Avail Use% Mounted on\n/dev/vda        252G   17G  128G  12% /\n"
    machine = node_facts(told({"df -PTB1 /dev/shm": exact, "df -h": human})).machine
    assert (machine.shm_total, machine.shm_free) == (2048, 1024)
    assert machine.disks == (Disk("/", 252 << 30, 128 << 30),)


def test_a_machine_by_its_commands() -> None:
    """Names, log, stuck processes, ACS, clock and modules where no file is known."""
    machine = node_facts(
        told(
            {
                "uname -a": "Linux gx1 6.17.0-1032-nvidia #32 SMP x86_64 GNU/Linux\n",
                "getent hosts gx1": "127.0.1.1       gx1\n",
                "dmesg": "[1.0] NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.\n",
                "ps -eo pid,stat,user,comm": "  PID STAT USER     COMMAND\n"
                "   12 D    root     nv queue\n   13 S    you      raylet\n",
                "lspci -vvv": "00:01.0 PCI bridge: X\n\tACSCtl:\tSrcValid+ TransBlk- ReqRedir+\n\n"
                "01:00.0 Ethernet: Y\n",
                "timedatectl show": "Timezone=Etc/UTC\nNTPSynchronized=yes\n",
                "chronyc tracking": "System time     : 0.500000000 seconds slow of NTP time\n"
                "Leap status     : Normal\n",
                "lsmod": "Module                  Size  Used by\nmlx5_ib 1 0\n",
                "sysctl -a": "kernel.numa_balancing = 1\nnet.ipv4.conf.eth0.100.rp_filter = 1\n",
            }
        )
    )
    facts = machine.machine
    assert (facts.hostname, facts.kernel, facts.architecture) == ("gx1", "6.17.0-1032-nvidia", "x86_64")
    assert (facts.hostname_addresses, facts.modules) == (("127.0.1.1",), ("mlx5_ib",))
    assert (facts.clock_synchronised, facts.clock_offset) == (True, -0.5)
    assert facts.stuck == (Stuck(12, "nv queue", "D"),)
    assert facts.bridges == (PciBridge("0000:00:01.0", ("SrcValid", "ReqRedir")),)
    assert facts.sysctls == {"kernel.numa_balancing": "1", "net.ipv4.conf.eth0.100.rp_filter": "1"}
    assert [(pci, number) for pci, number, _ in machine.gpu.xids or ()] == [("0000:01:00", 79)]
    assert machine.stack.processes == (RayProcess(13, "raylet", "you", "raylet"),)


def test_docker_in_its_forms() -> None:
    """The plain form, JSON, an image, and an engine that may not be asked."""
    plain = "Client: Docker Engine\nServer:\n Server Version: 28.3.1\n Runtimes: io.containerd.runc.v2 nvidia runc\n"
    plain += " Default Runtime: runc\n Cgroup Driver: systemd\n"
    image = '[{"Id":"sha256:1","RepoTags":["vllm:1"],"RootFS":{"Layers":["sha256:a"]}}]'
    docker = node_facts(
        told(
            {
                "docker info": plain,
                "docker compose version": "Docker Compose version v2.38.1\n",
                "docker image inspect vllm:1": image,
            }
        )
    ).docker
    assert (docker.version, docker.running, docker.default_runtime, docker.compose) == (
        "28.3.1",
        True,
        "runc",
        "2.38.1",
    )
    assert docker.runtimes == ("io.containerd.runc.v2", "nvidia", "runc")
    assert docker.images == (Image("vllm:1", "sha256:1", ("sha256:a",)),)
    denied = Reply(1, "", "permission denied while trying to connect to the Docker daemon socket\n")
    closed = node_facts(Snapshot("n", replies={"docker info": denied})).docker
    assert (closed.installed, closed.running, closed.trouble) == (True, False, denied.err.strip())


def test_the_stack_by_pip_and_python() -> None:
    """Versions by whatever was asked; secrets in the environment are masked."""
    facts = node_facts(
        told(
            {
                "pip list": "Package Version\n------- -------\ntorch 2.11.0+cu130\nnvidia-nccl-cu13 2.28.9\n",
                "python3 --version": "Python 3.12.3\n",
                "python3 -c 'import ray; print(ray.__version__)'": "2.60.0\n",
                "env": "NCCL_DEBUG=INFO\nHUGGING_FACE_HUB_TOKEN=hf_abc\n",
            }
        )
    )
    stack = facts.stack
    assert (stack.python, stack.torch, stack.nccl, stack.ray, stack.cuda_runtime) == (
        "3.12.3",
        "2.11.0+cu130",
        "2.28.9",
        "2.60.0",
        "13.0",
    )
    assert facts.env == {"NCCL_DEBUG": "INFO", "HUGGING_FACE_HUB_TOKEN": "********"}
