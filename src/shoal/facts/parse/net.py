"""Network interfaces from ``/sys/class/net`` and ``ip``, with routes, sockets and sysctls."""

import re
from collections.abc import Mapping
from dataclasses import replace

from shoal.facts.net import Address, Netdev, NetFacts
from shoal.facts.parse import addresses, ethernet
from shoal.facts.parse.machine import sysctl
from shoal.facts.parse.rdma import is_there, pci_address
from shoal.facts.parse.text import flag, known, number, whole
from shoal.host.snapshot import Snapshot

CLASS = "/sys/class/net"
IFF_UP = 0x1
LOOPBACK, INFINIBAND = 772, 32  # ARPHRD_*


def parse_net(snapshot: Snapshot) -> NetFacts:
    """All interfaces of a snapshot; the kernel's files first, then ``ip``."""
    names, told = snapshot.list(CLASS), addresses.links(snapshot)
    # Files such as bonding_masters lie among the interfaces.
    listed = [name for name in names or () if f"{CLASS}/{name}" not in snapshot.files]
    every = tuple(dict.fromkeys((*listed, *told)))
    held = addresses.addresses(snapshot)
    return NetFacts(
        tuple(_netdev(snapshot, name, told.get(name), held) for name in every) if every or names is not None else None,
        routes=addresses.routes(snapshot),
        rp_filter_all=whole(sysctl(snapshot, "net.ipv4.conf.all.rp_filter")),
        arp_ignore_all=whole(sysctl(snapshot, "net.ipv4.conf.all.arp_ignore")),
        arp_announce_all=whole(sysctl(snapshot, "net.ipv4.conf.all.arp_announce")),
        port_range=_port_range(sysctl(snapshot, "net.ipv4.ip_local_port_range")),
        firewall=_firewall(snapshot),
        listening=addresses.listening(snapshot),
        neighbours=addresses.neighbours(snapshot),
    )


def _netdev(
    snapshot: Snapshot, name: str, told: Netdev | None, held: Mapping[str, tuple[Address, ...]] | None
) -> Netdev:
    read = _from_sysfs(snapshot, name)
    dev = _merged(read, told) if told else read
    if held is not None:
        dev = replace(dev, addresses=held.get(name, ()))
    if dev.running is None and dev.up is not None and dev.operstate:
        # As the kernel computes IFF_RUNNING, which /sys/class/net/*/flags leaves out.
        dev = replace(dev, running=dev.up and dev.operstate in {"up", "unknown"})
    return replace(
        dev,
        ethtool=ethernet.statistics(snapshot, name),
        fec=ethernet.fec(snapshot, name),
        qos=ethernet.qos(snapshot, name),
        speed_mbps=ethernet.speed(snapshot, name) if dev.speed_mbps is None else dev.speed_mbps,
        driver=dev.driver or ethernet.driver(snapshot, name),
        rp_filter=whole(sysctl(snapshot, f"net.ipv4.conf.{name}.rp_filter")),
        arp_ignore=whole(sysctl(snapshot, f"net.ipv4.conf.{name}.arp_ignore")),
        arp_announce=whole(sysctl(snapshot, f"net.ipv4.conf.{name}.arp_announce")),
    )


def _from_sysfs(snapshot: Snapshot, name: str) -> Netdev:
    base = f"{CLASS}/{name}"
    flags = whole(snapshot.word(f"{base}/flags"))
    return Netdev(
        name,
        index=whole(snapshot.word(f"{base}/ifindex")),
        operstate=known_state(snapshot.word(f"{base}/operstate")),
        carrier=flag(snapshot.word(f"{base}/carrier")),
        up=None if flags is None else bool(flags & IFF_UP),
        mtu=whole(snapshot.word(f"{base}/mtu")),
        speed_mbps=_speed(snapshot.word(f"{base}/speed")),
        duplex=known(snapshot.word(f"{base}/duplex")),
        mac=known(snapshot.word(f"{base}/address")),
        kind=_kind(snapshot, base),
        pci=pci_address(snapshot, f"{base}/device"),
        dev_port=whole(snapshot.word(f"{base}/dev_port")),
        driver=snapshot.target(f"{base}/device/driver"),
        master=snapshot.target(f"{base}/master"),
        lower=tuple(entry.removeprefix("lower_") for entry in snapshot.list(base) or () if entry.startswith("lower_")),
        vlan_id=_vlan(snapshot, name),
        bond_mode=(snapshot.word(f"{base}/bonding/mode") or "").partition(" ")[0] or None,
        is_vf=is_there(snapshot, f"{base}/device/physfn"),
        carrier_changes=whole(snapshot.word(f"{base}/carrier_changes")),
        statistics=_numbers(snapshot, f"{base}/statistics"),
    )


def known_state(word: str | None) -> str | None:
    """An operstate; ``unknown`` is one of them (the loopback interface has it)."""
    return word.lower() if word else None


def _speed(word: str | None) -> int | None:
    """Mb/s; the kernel says -1 where it does not know."""
    value = whole(word)
    return value if value is not None and value > 0 else None


def _numbers(snapshot: Snapshot, folder: str) -> dict[str, int]:
    values = {name: whole(snapshot.word(f"{folder}/{name}")) for name in snapshot.list(folder) or ()}
    return {name: value for name, value in values.items() if value is not None}


def _kind(snapshot: Snapshot, base: str) -> str | None:
    """What the interface is, by its type, its uevent and the folders it has."""
    names = snapshot.list(base)
    if not names:
        return None
    arphrd = whole(snapshot.word(f"{base}/type"))
    if arphrd in {LOOPBACK, INFINIBAND}:
        return "loopback" if arphrd == LOOPBACK else "infiniband"
    said = re.search(r"^DEVTYPE=(\w+)", snapshot.read(f"{base}/uevent") or "", re.MULTILINE)
    kind = said.group(1) if said else ""
    for folder, word in (("bonding", "bond"), ("bridge", "bridge"), ("wireless", "wlan"), ("phy80211", "wlan")):
        if folder in names or kind == word:
            return word
    if kind == "vlan":
        return "vlan"
    return "physical" if "device" in names else "virtual"


def _vlan(snapshot: Snapshot, name: str) -> int | None:
    """The VLAN tag, from /proc/net/vlan or by the name ``eth0.100``, where the interface is one."""
    said = re.search(r"VID: (\d{1,4})\b", snapshot.read(f"/proc/net/vlan/{name}") or "")
    if said:
        return int(said.group(1))
    row = re.search(
        rf"^{re.escape(name)}\s*\|\s*(\d{{1,4}})\b", snapshot.read("/proc/net/vlan/config") or "", re.MULTILINE
    )
    if row:
        return int(row.group(1))
    tag = re.fullmatch(r".+\.(\d{1,4})", name)
    return int(tag.group(1)) if tag and _kind(snapshot, f"{CLASS}/{name}") == "vlan" else None


def _merged(read: Netdev, told: Netdev) -> Netdev:
    """What the files say, completed by what ``ip`` says."""
    names = ("index", "operstate", "carrier", "up", "mtu", "mac", "kind", "master", "vlan_id", "bond_mode")
    gaps = {name: getattr(told, name) for name in names if getattr(read, name) is None}
    if read.kind == "virtual" and told.kind in {"vlan", "bond", "bridge"}:
        gaps["kind"] = told.kind
    return replace(read, running=told.running, lower=read.lower or told.lower, **gaps)


def _port_range(text: str | None) -> tuple[int, int] | None:
    ends = [int(value) for value in (number(word) for word in (text or "").split()) if value is not None]
    return (ends[0], ends[1]) if len(ends) == 2 else None


def _firewall(snapshot: Snapshot) -> str | None:
    """The rules that nft prints, else iptables'. Empty: there are none. None: nobody may know."""
    for program, *words in (("nft", "list", "ruleset"), ("iptables-save",), ("iptables", "-S")):
        for _, reply in snapshot.replies_of(program, *words):
            if reply.code == 0:
                return reply.out.strip()
    return None


def wireless(snapshot: Snapshot, device: str) -> bool | None:
    """Whether an interface is a wireless one; None where nobody looked."""
    kind = _kind(snapshot, f"{CLASS}/{device}")
    if kind is None:
        return device.startswith("wl") or None
    return kind == "wlan"
