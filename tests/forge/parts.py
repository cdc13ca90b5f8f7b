"""Parts of machines in the formats of the kernel and of the usual programs: base, interfaces, RDMA cards, GPUs."""

import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.forge.tree import Tree

GIB = 1 << 30
LINK_STATES = {"up": ("4: ACTIVE", "5: LinkUp"), "dark": ("1: DOWN", "2: Polling"), "off": ("1: DOWN", "3: Disabled")}
COUNTERS = (
    "excessive_buffer_overrun_errors",
    "link_downed",
    "link_error_recovery",
    "local_link_integrity_errors",
    "port_rcv_data",
    "port_rcv_errors",
    "port_xmit_data",
    "port_xmit_discards",
    "symbol_error",
)
HARDWARE = (
    "local_ack_timeout_err",
    "np_cnp_sent",
    "out_of_sequence",
    "packet_seq_err",
    "req_transport_retries_exceeded",
    "rnr_nak_retry_err",
    "roce_adp_retrans",
    "roce_slow_restart",
    "rp_cnp_handled",
    "rx_icrc_encapsulated",
)


@dataclass(frozen=True)
class Nic:
    """One PCI function of a network card. ``link`` is up, dark (no cable) or off; with an ``hca`` it has RDMA."""

    netdev: str
    pci: str
    bridge: str  # the root that it hangs on: pci0000:00
    hca: str = ""
    number: int = 0
    link: str = "up"
    layer: str = "Ethernet"
    rate: str = "200 Gb/sec (4X HDR)"
    speed: int = 200000
    mtu: int = 9000
    mac: str = "4c:bb:47:00:00:01"
    ip: str = ""
    driver: str = "mlx5_core"
    vendor: str = "0x15b3"
    board: str = "MT_0000000834"
    kind: str = "MT4129"
    firmware: str = "28.45.4028"
    guid: str = "4cbb:4700:0300:0001"
    card: str = ""  # sys_image_guid; that of the function itself where it is empty
    lanes: tuple[int, int] = (16, 16)
    transfers: tuple[str, str] = ("32.0 GT/s PCIe", "32.0 GT/s PCIe")
    numa: int = 0
    physfn: str = ""
    master: str = ""
    vlans: tuple[tuple[int, str], ...] = ()
    trust: str = ""
    pfc: str = ""
    ecn: str = ""
    lid: int = 0
    above: tuple[str, str] = ("", "")  # the bond that its GIDs belong to, and the bond's address

    @property
    def folder(self) -> str:
        """Where the kernel has it."""
        return f"/sys/devices/{self.bridge}/{self.pci}"


@dataclass(frozen=True)
class Box:
    """A machine's own settings."""

    name: str
    product: str = "NVIDIA_DGX_Spark"
    vendor: str = "NVIDIA"
    kernel: str = "6.14.0-1013-nvidia"
    arch: str = "aarch64"
    cmdline: str = "BOOT_IMAGE=/boot/vmlinuz root=/dev/nvme0n1p2 ro quiet"
    memory: int = 119 * GIB
    cpus: int = 20
    numa: int = 1
    virtual: str = ""
    modules: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ("192.168.1.10",)
    ofed: str = ""
    clocksource: str = "tsc"
    env: dict[str, str] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)


def base(tree: Tree, box: Box) -> None:
    """Kernel, memory, limits, clock, names."""
    memory = {"MemTotal": box.memory, "MemFree": box.memory * 3 // 4, "MemAvailable": box.memory * 9 // 10}
    rows = {
        **memory,
        "Cached": box.memory // 10,
        "SwapTotal": 0,
        "SwapFree": 0,
        "CmaTotal": 64 << 20,
        "CmaFree": 32 << 20,
    }
    tree.folder(
        "/proc",
        meminfo="".join(f"{name}:{size >> 10:>15} kB\n" for name, size in rows.items()),
        cmdline=box.cmdline,
        uptime="864000.00 17280000.00",
        modules="".join(f"{name} 16384 0 - Live 0x0000000000000000\n" for name in box.modules),
        cpuinfo="processor\t: 0\nflags\t\t: fpu" + (" hypervisor" if box.virtual else "") + "\n",
    )
    tree.folder("/proc/sys/kernel", hostname=box.name, osrelease=box.kernel, numa_balancing=0, pid_max=4194304)
    tree.file("/proc/sys/net/ipv4/ip_local_port_range", "32768\t60999")
    tree.file("/proc/self/limits", LIMITS)
    tree.file("/proc/self/status", "Name:\tshoal\nCapEff:\t0000000000000000\nSeccomp:\t0\n")
    tree.file("/proc/self/uid_map", "         0          0 4294967295\n")
    tree.file("/proc/1/cgroup", "0::/init.scope")
    tree.file("/etc/machine-id", f"{abs(hash_of(box.name)):032x}")
    tree.file("/etc/os-release", 'PRETTY_NAME="Ubuntu 24.04.3 LTS"\nID=ubuntu\n')
    tree.folder("/sys/class/dmi/id", product_name=box.product, sys_vendor=box.vendor, bios_version="5.36_0ACUM018")
    tree.file("/sys/devices/system/cpu/online", f"0-{box.cpus - 1}")
    tree.file("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance")
    tree.file("/sys/devices/system/clocksource/clocksource0/current_clocksource", box.clocksource)
    tree.file("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never")
    for number in range(box.numa):
        tree.file(f"/sys/devices/system/node/node{number}/cpulist", f"{number}")
    _commands(tree, box)


def hash_of(name: str) -> int:
    """A number of a name, the same in every run."""
    return int.from_bytes(name.encode().ljust(16, b"_")[:16])


BRIDGE = "0000:00:00.0 PCI bridge: Root port (prog-if 00 [Normal decode])"
DOCKER = {
    "ServerVersion": "28.3.3",
    "Runtimes": {"runc": {}, "nvidia": {}},
    "DefaultRuntime": "runc",
    "CgroupDriver": "systemd",
}
TCP = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n"
)
LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max stack size            67108864             unlimited            bytes
Max processes             unlimited            unlimited            processes
Max open files            1048576              1048576              files
Max locked memory         unlimited            unlimited            bytes
"""


def _commands(tree: Tree, box: Box) -> None:
    tree.reply("uname -m", f"{box.arch}\n")
    tree.reply(f"getent ahosts {box.name}", "".join(f"{ip} STREAM {box.name}\n" for ip in box.addresses))
    tree.reply(
        "df -PTB1 / /dev/shm /tmp /var /home /root",
        "Filesystem Type 1-blocks Used Available Capacity Mounted on\n"
        f"/dev/nvme0n1p2 ext4 {3600 * GIB} {400 * GIB} {3000 * GIB} 12% /\n"
        f"tmpfs tmpfs {box.memory // 2} 0 {box.memory // 2} 0% /dev/shm\n",
    )
    tree.reply("timedatectl show", "NTP=yes\nNTPSynchronized=yes\n")
    tree.reply("systemd-detect-virt", f"{box.virtual or 'none'}\n", code=0 if box.virtual else 1)
    tree.reply("dmesg", "".join(f"[    5.000000] {line}\n" for line in box.log))
    tree.reply("ps -eo pid,ppid,stat,user:32,comm", "PID PPID STAT USER COMMAND\n1 0 Ss root systemd\n")
    tree.reply("env", "".join(f"{name}={value}\n" for name, value in box.env.items()))
    told = {"python": "3.12.3", "packages": box.packages, "nccl_libraries": []}
    tree.reply("shoal-probe versions", json.dumps(told) + "\n")
    tree.reply("rdma system", "netns shared copy-on-fork on\n")
    if box.ofed:
        tree.reply("ofed_info -s", f"{box.ofed}:\n")
    else:
        tree.absent("ofed_info -s")
    tree.reply("nft list ruleset")
    tree.reply(
        "lspci -vvv", f"{BRIDGE}\n\t\tACSCtl: SrcValid- TransBlk- ReqRedir- CmpltRedir- UpstreamFwd- EgressCtrl-\n"
    )
    tree.reply("docker info --format '{{json .}}'", json.dumps(DOCKER) + "\n")
    tree.reply("docker compose version", "Docker Compose version v2.39.1\n")
    tree.reply("nvidia-ctk --version", "NVIDIA Container Toolkit CLI version 1.17.8\n")
    tree.file("/sys/fs/cgroup/pids.max", "max")
    tree.file("/sys/fs/cgroup/rdma.max", "mlx5_0 hca_handle=max hca_object=max" if box.modules else "")
    tree.file("/proc/net/tcp", TCP)


def network(tree: Tree, nics: Sequence[Nic], *, gateway: str, more: Sequence[dict[str, Any]] = ()) -> None:
    """All interfaces in sysfs, and what ``ip`` prints of them."""
    shown: list[dict[str, Any]] = [_shown("lo", 1, "00:00:00:00:00:00", 65536, "127.0.0.1/8", "loopback")]
    routes: list[dict[str, Any]] = [{"dst": "default", "gateway": "192.168.1.1", "dev": gateway, "protocol": "dhcp"}]
    for index, nic in enumerate(nics, 2):
        function(tree, nic)
        interface(tree, nic, index)
        shown.append(
            _shown(nic.netdev, index, nic.mac, nic.mtu, nic.ip, "ether", up=nic.link == "up", master=nic.master)
        )
        for vlan, ip in nic.vlans:
            info = {
                "linkinfo": {"info_kind": "vlan", "info_data": {"protocol": "802.1Q", "id": vlan}},
                "link": nic.netdev,
            }
            shown.append(_shown(f"{nic.netdev}.{vlan}", 100 + vlan, nic.mac, nic.mtu, ip, "ether") | info)
    shown += more
    for row in shown:
        for address in row["addr_info"]:
            whole = ipaddress.ip_interface(f"{address['local']}/{address['prefixlen']}")
            if row["ifname"] != "lo":
                routes.append(
                    {"dst": str(whole.network), "dev": row["ifname"], "scope": "link", "prefsrc": str(whole.ip)}
                )
    tree.reply("ip -j addr", json.dumps(shown))
    tree.reply("ip -j route", json.dumps(routes))
    tree.reply("ip -j neigh", "[]")
    tree.file("/proc/net/route", f"Iface\tDestination\tGateway\tFlags\n{gateway}\t00000000\t0101A8C0\t0003\n")
    for name in ("all", "default", *(nic.netdev for nic in nics)):
        tree.folder(f"/proc/sys/net/ipv4/conf/{name}", rp_filter=2, arp_ignore=0, arp_announce=0)


def _shown(
    name: str, index: int, mac: str, mtu: int, ip: str, kind: str, *, up: bool = True, master: str = ""
) -> dict[str, Any]:
    """One interface as ``ip -j addr`` prints it."""
    whole = ipaddress.ip_interface(ip) if ip else None
    held = (
        []
        if whole is None
        else [{"family": "inet", "local": str(whole.ip), "prefixlen": whole.network.prefixlen, "scope": "global"}]
    )
    flags = ["BROADCAST", "MULTICAST", *(["UP", "LOWER_UP"] if up else ["UP", "NO-CARRIER"])]
    row = {"ifindex": index, "ifname": name, "flags": flags, "mtu": mtu, "operstate": "UP" if up else "DOWN"}
    return row | {"link_type": kind, "address": mac, "addr_info": held} | ({"master": master} if master else {})


def virtual(tree: Tree, name: str, **values: object) -> None:
    """An interface without hardware."""
    tree.link(f"/sys/class/net/{name}", f"../../devices/virtual/net/{name}")
    tree.folder(f"/sys/devices/virtual/net/{name}", uevent=f"INTERFACE={name}", operstate="up", **values)


def bond(name: str, index: int, mac: str, ip: str, mtu: int = 1500) -> dict[str, Any]:
    """A bond as ``ip -j -d addr`` prints it."""
    info = {"linkinfo": {"info_kind": "bond", "info_data": {"mode": "802.3ad"}}}
    return _shown(name, index, mac, mtu, ip, "ether") | info


def function(tree: Tree, nic: Nic) -> None:
    """The PCI function of a card."""
    code = "0x020700" if nic.layer == "InfiniBand" else "0x020000"
    tree.folder(
        nic.folder,
        **{"class": code},
        vendor=nic.vendor,
        numa_node=nic.numa,
        uevent=f"DRIVER={nic.driver}\nPCI_SLOT_NAME={nic.pci}\n",
        current_link_speed=nic.transfers[0],
        max_link_speed=nic.transfers[1],
        current_link_width=nic.lanes[0],
        max_link_width=nic.lanes[1],
    )
    tree.link(f"{nic.folder}/driver", f"../../../bus/pci/drivers/{nic.driver}")
    tree.link(f"/sys/bus/pci/devices/{nic.pci}", f"../../../devices/{nic.bridge}/{nic.pci}")
    if nic.physfn:
        tree.link(f"{nic.folder}/physfn", f"../{nic.physfn}")


def interface(tree: Tree, nic: Nic, index: int) -> None:
    """Its interface, with flow control where the machine has OFED's files."""
    up, base_ = nic.link == "up", f"{nic.folder}/net/{nic.netdev}"
    tree.link(f"/sys/class/net/{nic.netdev}", f"../../devices/{nic.bridge}/{nic.pci}/net/{nic.netdev}")
    tree.link(f"{base_}/device", f"../../../{nic.pci}")
    tree.folder(
        base_,
        ifindex=index,
        operstate="up" if up else "down",
        carrier=int(up),
        flags="0x1003",
        mtu=nic.mtu,
        address=nic.mac,
        type=32 if nic.layer == "InfiniBand" else 1,
        dev_port=0,
        carrier_changes=2,
        speed=nic.speed if up else -1,
        duplex="full" if up else "unknown",
    )
    tree.folder(f"{base_}/statistics", rx_crc_errors=0, rx_errors=0, tx_errors=0)
    if nic.master:
        tree.link(f"{base_}/master", f"../../../../virtual/net/{nic.master}")
    if nic.trust:
        tree.folder(f"{base_}/qos", trust=nic.trust, pfc=nic.pfc)
        tree.reply(f"mlnx_qos -i {nic.netdev}", f"DCBX mode: OS controlled\nPriority trust state: {nic.trust}\n")
        for point in ("roce_np", "roce_rp"):
            for priority, bit in enumerate(nic.ecn):
                tree.file(f"{base_}/ecn/{point}/enable/{priority}", bit)
    tree.reply(
        f"ethtool -S {nic.netdev}",
        "NIC statistics:\n     rx_discards_phy: 0\n     rx_prio3_pause: 0\n     tx_prio3_pause: 0\n",
    )
    tree.reply(f"ethtool --show-fec {nic.netdev}", f"FEC parameters for {nic.netdev}:\nActive FEC encoding: RS\n")


def rdma(tree: Tree, nics: Sequence[Nic]) -> None:
    """RDMA devices with ports, GID tables, counters and device nodes, and what ``ibv_devinfo`` prints of them."""
    told = ""
    for number, nic in enumerate(nics):
        _device(tree, nic, number)
        mtu = {True: "4096 (5)", False: "1024 (3)"}[nic.mtu > 4200 or nic.layer == "InfiniBand"]
        told += f"hca_id:\t{nic.hca}\n\ttransport:\tInfiniBand (0)\n\t\tport:\t1\n\t\t\tactive_mtu:\t\t{mtu}\n\n"
    tree.file("/dev/infiniband/rdma_cm", "")
    for name in ("libibverbs.so.1", "libibverbs/libmlx5-rdmav34.so"):
        tree.file(f"/usr/lib/x86_64-linux-gnu/{name}", "")
    tree.reply("ibv_devinfo -v", told)


def _device(tree: Tree, nic: Nic, number: int) -> None:
    base_ = f"{nic.folder}/infiniband/{nic.hca}"
    tree.link(f"/sys/class/infiniband/{nic.hca}", f"../../devices/{nic.bridge}/{nic.pci}/infiniband/{nic.hca}")
    tree.link(f"{base_}/device", f"../../../{nic.pci}")
    tree.folder(
        base_,
        fw_ver=nic.firmware,
        board_id=nic.board,
        hca_type=nic.kind,
        node_guid=nic.guid,
        sys_image_guid=nic.card or nic.guid,
    )
    port, (state, phys) = f"{base_}/ports/1", LINK_STATES[nic.link]
    tree.folder(
        port,
        state=state,
        phys_state=phys,
        link_layer=nic.layer,
        rate=nic.rate,
        lid=f"0x{nic.lid:x}",
        sm_lid=f"0x{int(nic.lid > 0):x}",
    )
    tree.folder(f"{port}/counters", **dict.fromkeys(COUNTERS, 0))
    tree.folder(f"{port}/hw_counters", **dict.fromkeys(HARDWARE, 0))
    gids(tree, nic, port)
    for kind, letter in (("verbs", "uverbs"), ("mad", "umad")):
        tree.file(f"/sys/class/infiniband_{kind}/{letter}{number}/ibdev", nic.hca)
        tree.file(f"/dev/infiniband/{letter}{number}", "")


def gids(tree: Tree, nic: Nic, port: str) -> None:
    """The GID table: two slots for each address of the port and its VLANs, then an empty one that cannot be read."""
    if nic.layer == "InfiniBand":
        tree.file(f"{port}/gids/0", f"fe80:0000:0000:0000:{nic.guid}")
        tree.file(f"{port}/gid_attrs/types/0", "IB/RoCE v1")
        tree.errors[f"{port}/gid_attrs/ndevs/0"] = "EINVAL"
        return
    suffix = "{:02x}{}:{}ff:fe{}:{}{}".format(int(nic.mac[:2], 16) ^ 2, *nic.mac.split(":")[1:])
    rows = [(f"fe80:0000:0000:0000:{suffix}", nic.above[0] or nic.netdev)]
    holders = [nic.above[::-1], (nic.ip, nic.netdev), *((ip, f"{nic.netdev}.{vlan}") for vlan, ip in nic.vlans)]
    rows += [(mapped(ip), netdev) for ip, netdev in holders if ip]
    table = [(gid, kind, netdev) for gid, netdev in rows for kind in ("IB/RoCE v1", "RoCE v2")]
    for index, (gid, kind, netdev) in enumerate(table):
        tree.file(f"{port}/gids/{index}", gid)
        tree.file(f"{port}/gid_attrs/types/{index}", kind)
        tree.file(f"{port}/gid_attrs/ndevs/{index}", netdev)
    empty = len(table)
    tree.file(f"{port}/gids/{empty}", "0000:0000:0000:0000:0000:0000:0000:0000")
    tree.errors |= {f"{port}/gid_attrs/{part}/{empty}": "EINVAL" for part in ("types", "ndevs")}


def mapped(ip: str) -> str:
    """The GID of an IPv4 address."""
    return "0000:0000:0000:0000:0000:ffff:{:02x}{:02x}:{:02x}{:02x}".format(*ipaddress.ip_interface(ip).ip.packed)
