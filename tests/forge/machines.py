"""The machines in tests/machines that are made by hand: what real ones of these kinds show, shortened.

Each function gives the trees of one folder. ``python -m tests.forge`` writes them all anew.
"""

from collections.abc import Callable
from dataclasses import replace

from tests.forge.gpus import Card, gpus, switches
from tests.forge.parts import GIB, Box, Nic, base, bond, network, rdma, virtual
from tests.forge.tree import Tree

RDMA_MODULES = ("mlx5_core", "mlx5_ib", "ib_core", "ib_uverbs", "ib_umad", "rdma_cm", "rdma_ucm")
GPU_MODULES = ("nvidia", "nvidia_uvm", "nvidia_modeset")
NEW = {"nvidia-nccl-cu13": "2.28.9", "torch": "2.11.0+cu130", "ray": "2.60.0", "vllm": "0.26.0"}
OLD = {"nvidia-nccl-cu12": "2.27.5", "torch": "2.9.0+cu128", "ray": "2.52.0", "vllm": "0.12.0"}
POWER = "mlx5_core 0000:01:00.0: mlx5_pcie_event:301:(pid 7): Detected insufficient power on the PCIe slot (27W)."
LIMITED = (
    "mlx5_core 0000:01:00.0: 126.028 Gb/s available PCIe bandwidth, limited by 32.0 GT/s PCIe x4 link at 0000:00:00.0 "
    "(capable of 504.112 Gb/s with 32.0 GT/s PCIe x16 link)"
)


def spark(number: int, addresses: dict[str, str], **settings: str) -> Tree:
    """A DGX Spark. ``addresses`` by interface, as 10.0.1.1/24; a cage without one has no cable."""
    tree = Tree(f"gx{number}")
    management = f"192.168.1.{10 + number}"
    control, own = (management, "enP7s7") if len(addresses) > 2 else _first(addresses)
    head = control.rpartition(".")[0] + (".11" if own == "enP7s7" else ".1")
    env = {
        "RAY_MODE": "head" if number == 1 else "worker",
        "RAY_ADDRESS": f"{head}:6379",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": "/etc/shoal/ray.token",
        "VLLM_HOST_IP": control,
        "NCCL_SOCKET_IFNAME": f"={own}",
        "GLOO_SOCKET_IFNAME": own,
        **settings,
    }
    box = Box(
        tree.name,
        modules=(*RDMA_MODULES, *GPU_MODULES),
        log=(POWER, LIMITED),
        addresses=(management,),
        clocksource="arch_sys_counter",
        env=env,
        packages=NEW,
    )
    base(tree, box)
    nics = []
    for cage in (0, 1):
        for domain, prefix in (("0000", ""), ("0002", "P2")):
            netdev = f"en{prefix}p1s0f{cage}np{cage}"
            mine = [name for name in addresses if name.endswith(f"f{cage}np{cage}")]
            serial = f"{number:02x}:{len(nics):02x}"
            nics.append(
                Nic(
                    netdev,
                    f"{domain}:01:00.{cage}",
                    f"pci{domain}:00/{domain}:00:00.0",
                    hca=f"roce{prefix}p1s0f{cage}",
                    link="up" if mine else "dark",
                    rate="200 Gb/sec (2X NDR)" if mine else "40 Gb/sec (4X QDR)",
                    mac=f"4c:bb:47:00:{serial}",
                    ip=addresses.get(netdev, ""),
                    guid=f"4cbb:4703:00{number:02x}:00{len(nics):02x}",
                    card=f"4cbb:4703:00{number:02x}:0000",
                    lanes=(4, 16),
                    numa=0,
                    board="NVD0000000087",
                )
            )
    lan = Nic("enP7s7", "0007:01:00.0", "pci0007:00", speed=10000, mtu=1500, driver="r8127", vendor="0x10ec")
    lan = replace(
        lan, ip=f"{management}/24", mac=f"4c:bb:47:00:{number:02x}:f7", lanes=(1, 1), transfers=("16.0 GT/s PCIe",) * 2
    )
    network(tree, [*nics, lan], gateway="enP7s7")
    rdma(tree, nics)
    gpus(tree, [Card("000f:01:00.0", "pci000f:00")], driver="580.95.05", cuda="13.0")
    return tree


def _first(addresses: dict[str, str]) -> tuple[str, str]:
    """The address and the interface that carry the control plane."""
    netdev, ip = next(iter(addresses.items()))
    return ip.partition("/")[0], netdev


def spark_pair() -> list[Tree]:
    """Two DGX Sparks and one cable in cage 1: both of its functions have an address."""
    return [
        spark(n, {"enp1s0f1np1": f"192.168.100.{n}/24", "enP2p1s0f1np1": f"192.168.101.{n}/24"}, NCCL_IB_TC="106")
        for n in (1, 2)
    ]


def spark_ring() -> list[Tree]:
    """Three DGX Sparks in a ring, without a switch: two subnets on each cable."""
    cables = {(1, 1): 10, (2, 0): 10, (2, 1): 20, (3, 0): 20, (3, 1): 30, (1, 0): 30}
    out = []
    for number in (1, 2, 3):
        held = {}
        for cage in (0, 1):
            net = cables[number, cage]
            held[f"enp1s0f{cage}np{cage}"] = f"10.0.{net}.{number}/24"
            held[f"enP2p1s0f{cage}np{cage}"] = f"10.0.{net + 1}.{number}/24"
        out.append(
            spark(number, held, NCCL_IB_SUBNET_AWARE_ROUTING="1", NCCL_IB_MERGE_NICS="0", NCCL_NET_PLUGIN="none")
        )
    for tree in out:
        tree.reply(
            "shoal-probe versions", str(tree.replies["shoal-probe versions"]["stdout"]).replace("2.28.9", "2.30.7")
        )
    return out


def h100() -> list[Tree]:
    """An H100 host: eight InfiniBand cards, a bond of two Ethernet ports, a BlueField for management."""
    tree = Tree("h100-01")
    box = Box(
        tree.name,
        product="DGXH100",
        kernel="6.8.0-79-generic",
        arch="x86_64",
        cmdline="BOOT_IMAGE=/vmlinuz root=/dev/md0 ro iommu=pt",
        memory=2015 * GIB,
        cpus=224,
        numa=2,
        modules=(*RDMA_MODULES, *GPU_MODULES, "nvidia_peermem"),
        addresses=("192.168.1.21",),
        ofed="MLNX_OFED_LINUX-24.10-2.1.8.0",
        env={"NCCL_IB_HCA": "=" + ",".join(f"mlx5_{n}" for n in range(8))},
        packages=OLD,
    )
    base(tree, box)
    roots = ("15", "27", "38", "49", "9b", "ac", "bc", "cc")
    compute = [
        Nic(
            f"ibp{int(root, 16) + 3}s0",
            f"0000:{int(root, 16) + 3:02x}:00.0",
            f"pci0000:{root}",
            hca=f"mlx5_{n}",
            layer="InfiniBand",
            rate="400 Gb/sec (4X NDR)",
            speed=400000,
            mtu=4092,
            mac=f"a0:88:c2:00:00:{n:02x}",
            guid=f"a088:c203:0011:00{n:02x}",
            board="MT_0000000838",
            firmware="28.39.3560",
            numa=n // 4,
            lid=20 + n,
        )
        for n, root in enumerate(roots)
    ]
    ports = [
        Nic(
            f"ens6f{n}np{n}",
            f"0000:5d:00.{n}",
            "pci0000:59",
            hca=f"mlx5_{8 + n}",
            rate="100 Gb/sec (4X EDR)",
            speed=100000,
            mtu=1500,
            mac="a0:88:c2:00:01:00",
            guid=f"a088:c203:0012:00{n:02x}",
            card="a088:c203:0012:0000",
            board="MT_0000000437",
            kind="MT4125",
            firmware="22.39.3560",
            transfers=("16.0 GT/s PCIe",) * 2,
            master="bond0",
        )
        for n in (0, 1)
    ]
    dpu = Nic(
        "ens7f0np0",
        "0000:aa:00.0",
        "pci0000:a9",
        hca="mlx5_10",
        link="dark",
        rate="25 Gb/sec (1X EDR)",
        speed=25000,
        mtu=1500,
        mac="a0:88:c2:00:02:00",
        guid="a088:c203:0013:0000",
        board="MT_0000000884",
        kind="MT41692",
        firmware="32.39.3560",
        numa=1,
    )
    nics = [*compute, *ports, dpu]
    virtual(tree, "bond0", carrier=1, mtu=1500, speed=200000)
    network(tree, nics, gateway="bond0", more=[bond("bond0", 60, "a0:88:c2:00:01:00", "192.168.1.21/24")])
    rdma(tree, nics)
    cards = [
        Card(
            f"0000:{int(root, 16) + 6:02x}:00.0",
            f"pci0000:{root}",
            "NVIDIA H100 80GB HBM3",
            81559,
            numa=n // 4,
            links=18,
            fabric="Completed",
            ecc=True,
        )
        for n, root in enumerate(roots)
    ]
    gpus(tree, cards, driver="570.158.01", cuda="12.8", peermem=True)
    switches(tree, [(f"0000:0{n}:00.0", "pci0000:00") for n in range(5, 9)])
    return [tree]


def connectx6() -> list[Tree]:
    """A host with two A100 PCIe cards and a two-port ConnectX-6 Dx: RoCE on a VLAN of each port, with PFC and ECN."""
    tree = Tree("roce-01")
    box = Box(
        tree.name,
        product="PowerEdge R750xa",
        vendor="Dell Inc.",
        kernel="5.15.0-151-generic",
        arch="x86_64",
        cmdline="BOOT_IMAGE=/vmlinuz root=/dev/sda2 ro iommu=pt",
        memory=503 * GIB,
        cpus=64,
        numa=2,
        modules=(*RDMA_MODULES, *GPU_MODULES, "nvidia_peermem", "8021q"),
        addresses=("192.168.1.31",),
        ofed="MLNX_OFED_LINUX-23.10-3.2.2.0",
        env={"NCCL_IB_TC": "106", "NCCL_IB_SL": "3", "NCCL_IB_HCA": "=mlx5_0,mlx5_1"},
        packages=OLD,
    )
    base(tree, box)
    only_3 = "00010000"
    nics = [
        Nic(
            f"ens3f{n}np{n}",
            f"0000:4b:00.{n}",
            "pci0000:4a",
            hca=f"mlx5_{n}",
            rate="100 Gb/sec (2X HDR)",
            speed=100000,
            mac=f"b8:ce:f6:00:00:0{n}",
            guid=f"b8ce:f603:0011:000{n}",
            card="b8ce:f603:0011:0000",
            board="MT_0000000359",
            kind="MT4125",
            firmware="22.39.3560",
            transfers=("16.0 GT/s PCIe",) * 2,
            vlans=((100 + n, f"10.1.{n}.1/24"),),
            trust="dscp",
            pfc=",".join(only_3),
            ecn=only_3,
        )
        for n in (0, 1)
    ]
    lan = Nic(
        "eno1",
        "0000:04:00.0",
        "pci0000:00",
        speed=10000,
        mtu=1500,
        driver="tg3",
        vendor="0x14e4",
        mac="b8:ce:f6:00:00:f0",
    )
    lan = replace(lan, ip="192.168.1.31/24", lanes=(1, 1), transfers=("5.0 GT/s PCIe",) * 2)
    network(tree, [*nics, lan], gateway="eno1")
    rdma(tree, nics)
    cards = [
        Card(f"0000:{bus}:00.0", f"pci0000:{root}", "NVIDIA A100 80GB PCIe", 81920, numa=n, ecc=True)
        for n, (bus, root) in enumerate((("17", "16"), ("ca", "c9")))
    ]
    gpus(tree, cards, driver="535.247.01", cuda="12.2", open_modules=False, peermem=True)
    tree.reply("shoal-probe versions", str(tree.replies["shoal-probe versions"]["stdout"]).replace("+cu128", "+cu126"))
    return [tree]


def bonded() -> list[Tree]:
    """A host with two L40S and a ConnectX-5 whose two ports are one bond: one RDMA device for both."""
    tree = Tree("bond-01")
    box = Box(
        tree.name,
        product="AS -4124GS-TNR",
        vendor="Supermicro",
        kernel="6.8.0-79-generic",
        arch="x86_64",
        cmdline="BOOT_IMAGE=/vmlinuz root=/dev/md0 ro iommu=pt",
        memory=503 * GIB,
        cpus=96,
        modules=(*RDMA_MODULES, *GPU_MODULES, "bonding", "nvidia_peermem"),
        addresses=("10.3.0.1",),
        packages=OLD,
    )
    base(tree, box)
    nics = [
        Nic(
            f"ens2f{n}np{n}",
            f"0000:81:00.{n}",
            "pci0000:80",
            rate="100 Gb/sec (4X EDR)",
            speed=100000,
            mac="b8:ce:f6:00:01:00",
            guid="b8ce:f603:0021:0000",
            board="MT_0000000013",
            kind="MT4119",
            firmware="16.35.4030",
            transfers=("16.0 GT/s PCIe",) * 2,
            master="bond0",
            above=("bond0", "10.3.0.1/24"),
        )
        for n in (0, 1)
    ]
    nics[0] = replace(nics[0], hca="mlx5_bond_0")
    virtual(tree, "bond0", carrier=1, mtu=9000, speed=200000)
    network(tree, nics, gateway="bond0", more=[bond("bond0", 60, "b8:ce:f6:00:01:00", "10.3.0.1/24", 9000)])
    rdma(tree, nics[:1])
    cards = [Card(f"0000:{bus}:00.0", "pci0000:80", "NVIDIA L40S", 46068, ecc=True) for bus in ("82", "83")]
    gpus(tree, cards, driver="570.158.01", cuda="12.8", open_modules=False, peermem=True)
    return [tree]


def virtual_machine() -> list[Tree]:
    """A cloud's virtual machine: one H100 passed through, one virtual function with RoCE, virtio for the rest."""
    tree = Tree("vm-01")
    box = Box(
        tree.name,
        product="Virtual Machine",
        vendor="QEMU",
        kernel="6.8.0-79-generic",
        arch="x86_64",
        memory=251 * GIB,
        cpus=32,
        virtual="kvm",
        modules=(*RDMA_MODULES, *GPU_MODULES),
        addresses=("192.168.1.41",),
        clocksource="tsc",
        env={},
        packages=OLD,
    )
    base(tree, box)
    fabric = Nic(
        "ens8",
        "0000:00:08.0",
        "pci0000:00",
        hca="mlx5_0",
        rate="200 Gb/sec (4X HDR)",
        speed=200000,
        mac="02:00:00:00:00:08",
        ip="10.2.0.1/24",
        guid="0200:00ff:fe00:0008",
        board="MT_0000000223",
        kind="MT4126",
        firmware="22.39.3560",
        lanes=(0, 0),
        transfers=("Unknown", "Unknown"),
        physfn="0000:00:00.0",
        numa=-1,
    )
    lan = Nic(
        "ens3",
        "0000:00:03.0",
        "pci0000:00",
        speed=-1,
        mtu=1500,
        driver="virtio_net",
        vendor="0x1af4",
        mac="02:00:00:00:00:03",
    )
    network(
        tree, [fabric, replace(lan, ip="192.168.1.41/24", lanes=(0, 0), transfers=("Unknown",) * 2)], gateway="ens3"
    )
    rdma(tree, [fabric])
    card = Card("0000:00:06.0", "pci0000:00", "NVIDIA H100 80GB HBM3", 81559, links=0, ecc=True, numa=-1)
    gpus(tree, [card], driver="570.158.01", cuda="12.8", peermem=False)
    return [tree]


def laptop() -> list[Tree]:
    """A laptop with Wi-Fi and no GPU of NVIDIA's."""
    tree = Tree("laptop")
    box = Box(
        tree.name,
        product="20XW0055GE",
        vendor="LENOVO",
        kernel="6.12.43-amd64",
        arch="x86_64",
        memory=31 * GIB,
        cpus=8,
        modules=("iwlwifi", "e1000e", "i915"),
        addresses=("192.168.1.50",),
    )
    base(tree, box)
    wifi = Nic(
        "wlp0s20f3",
        "0000:00:14.3",
        "pci0000:00",
        speed=-1,
        mtu=1500,
        driver="iwlwifi",
        vendor="0x8086",
        mac="a4:42:3b:00:00:01",
    )
    wired = replace(wifi, netdev="enp0s31f6", pci="0000:00:1f.6", driver="e1000e", link="off", mac="a4:42:3b:00:00:02")
    network(tree, [replace(wifi, ip="192.168.1.50/24"), wired], gateway="wlp0s20f3")
    tree.absent("nvidia-smi -q", "rdma system", "ibv_devinfo -v", "systemctl is-active nvidia-fabricmanager")
    tree.reply("env", "HOME=/home/ada\nPATH=/usr/bin:/bin\n")
    tree.reply("shoal-probe versions", '{"python": "3.13.5", "packages": {}, "nccl_libraries": []}\n')
    return [tree]


MACHINES: dict[str, Callable[[], list[Tree]]] = {
    "spark-pair": spark_pair,
    "spark-ring": spark_ring,
    "h100-infiniband": h100,
    "connectx6-vlan": connectx6,
    "connectx5-bond": bonded,
    "vm-vf": virtual_machine,
    "laptop": laptop,
}
