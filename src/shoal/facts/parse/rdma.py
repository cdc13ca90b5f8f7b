"""RDMA devices from ``/sys/class/infiniband``, completed by what rdma-core's programs say."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from shoal.facts.parse import verbs
from shoal.facts.parse.text import first_line, known, number, output, string, whole
from shoal.facts.parse.text import rows as json_rows
from shoal.facts.rdma import CLASS, Gid, RdmaDevice, RdmaFacts, RdmaPort
from shoal.host.snapshot import Snapshot

BDF = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
VERBS = "/sys/class/infiniband_verbs"
MAD = "/sys/class/infiniband_mad"
PCI = "/sys/bus/pci/devices"
NODES = "/dev/infiniband"
MAX_INDEX = 1 << 16


def parse_rdma(snapshot: Snapshot) -> RdmaFacts:
    """All RDMA devices of a snapshot; the kernel's files first, then the programs."""
    names, told = snapshot.list(CLASS), verbs.devices(snapshot)
    if names is None and told is None:
        return RdmaFacts(
            None,
            *_nodes(snapshot),
            netns_mode=_netns(snapshot),
            cards=(found := cards(snapshot)),
            card_drivers=drivers(snapshot, found),
        )
    listed = tuple(dict.fromkeys((*(names or ()), *(told or {}))))
    uverbs, umads = _by_device(snapshot, VERBS), _by_device(snapshot, MAD)
    devices = []
    for name in listed:
        read = _device(snapshot, name) if name in (names or ()) else RdmaDevice(name)
        merged = verbs.complete(read, (told or {}).get(name))
        devices.append(replace(merged, uverbs=uverbs.get(name), umad=umads.get(name)))
    return RdmaFacts(
        tuple(devices),
        *_nodes(snapshot),
        netns_mode=_netns(snapshot),
        cards=(found := cards(snapshot)),
        card_drivers=drivers(snapshot, found),
    )


def _device(snapshot: Snapshot, name: str) -> RdmaDevice:
    base = f"{CLASS}/{name}"
    pci = f"{base}/device"
    ports = _numbers(snapshot, f"{base}/ports")
    return RdmaDevice(
        name,
        tuple(_port(snapshot, base, number) for number in ports),
        pci=pci_address(snapshot, pci),
        netdevs=_netdevs(snapshot, name, ports),
        driver=snapshot.target(f"{pci}/driver"),
        vendor=snapshot.word(f"{pci}/vendor"),
        fw_ver=known(snapshot.word(f"{base}/fw_ver")),
        board_id=known(snapshot.word(f"{base}/board_id")),
        hca_type=known(snapshot.word(f"{base}/hca_type")),
        node_guid=known(snapshot.word(f"{base}/node_guid")),
        sys_image_guid=known(snapshot.word(f"{base}/sys_image_guid")),
        numa_node=whole(snapshot.word(f"{pci}/numa_node")),
        is_vf=is_there(snapshot, f"{pci}/physfn"),
        physfn=snapshot.target(f"{pci}/physfn"),
        link_speed=known(snapshot.word(f"{pci}/current_link_speed")),
        link_width=whole(snapshot.word(f"{pci}/current_link_width")),
        max_link_speed=known(snapshot.word(f"{pci}/max_link_speed")),
        max_link_width=whole(snapshot.word(f"{pci}/max_link_width")),
        iommu_group=snapshot.target(f"{pci}/iommu_group"),
    )


def is_there(snapshot: Snapshot, path: str) -> bool | None:
    """Whether a link is there; None where nobody looked."""
    return True if snapshot.target(path) else snapshot.exists(path)


def pci_address(snapshot: Snapshot, path: str) -> str | None:
    """The PCI address of a ``device``: a link's target, or what the folder's uevent says."""
    target = snapshot.target(path)
    if target is None:
        said = re.search(r"^PCI_SLOT_NAME=(\S+)", snapshot.read(f"{path}/uevent") or "", re.MULTILINE)
        target = said.group(1) if said else None
    return target if target and BDF.fullmatch(target) else None


def _numbers(snapshot: Snapshot, folder: str) -> list[int]:
    names = (whole(name) for name in snapshot.list(folder) or ())
    return sorted({value for value in names if value is not None and 0 <= value < MAX_INDEX})


def _netdevs(snapshot: Snapshot, name: str, ports: list[int]) -> tuple[str, ...] | None:
    """The interfaces of the same PCI function; where that is not known, those of the first GID of each port."""
    listed = snapshot.list(f"{CLASS}/{name}/device/net")
    if listed:
        return listed
    firsts = (snapshot.word(f"{CLASS}/{name}/ports/{port}/gid_attrs/ndevs/0") for port in ports)
    return tuple(dict.fromkeys(ndev for ndev in firsts if ndev)) or listed


def _port(snapshot: Snapshot, base: str, port: int) -> RdmaPort:
    where = f"{base}/ports/{port}"
    rate = snapshot.word(f"{where}/rate")
    return RdmaPort(
        port,
        state=_enum(snapshot.word(f"{where}/state")),
        phys_state=_enum(snapshot.word(f"{where}/phys_state")),
        link_layer=known(snapshot.word(f"{where}/link_layer")),
        rate_gbps=number(rate),
        rate_text=rate or "",
        lid=whole(snapshot.word(f"{where}/lid")),
        sm_lid=whole(snapshot.word(f"{where}/sm_lid")),
        gids=_gids(snapshot, where),
        counters=_counters(snapshot, f"{where}/counters"),
        hw_counters=_counters(snapshot, f"{where}/hw_counters"),
    )


def _enum(text: str | None) -> str | None:
    """``ACTIVE`` of ``4: ACTIVE``; a number or a name alone stays as it is."""
    word = (text or "").rpartition(":")[2].strip()
    return word or None


def _gids(snapshot: Snapshot, port: str) -> tuple[Gid, ...] | None:
    if snapshot.list(f"{port}/gids") is None:
        return None
    folders = [snapshot.resolve(f"{port}/{part}") for part in ("gids", "gid_attrs/types", "gid_attrs/ndevs")]
    return tuple(_gid(snapshot, folders, index) for index in _numbers(snapshot, f"{port}/gids"))


def _gid(snapshot: Snapshot, folders: list[str], index: int) -> Gid:
    """One slot. The folders are resolved: thousands of slots lie in them."""
    gids, types, ndevs = (f"{folder}/{index}" for folder in folders)
    gid, kind, ndev = (snapshot.files.get(path, "").strip() for path in (gids, types, ndevs))
    return Gid(index, gid, kind or None, ndev or None, snapshot.errors.get(types) or snapshot.errors.get(ndevs) or "")


def _counters(snapshot: Snapshot, folder: str) -> Mapping[str, int | None] | None:
    names = snapshot.list(folder)
    if names is None:
        return None
    return {name: whole(snapshot.word(f"{folder}/{name}")) for name in names}


def _by_device(snapshot: Snapshot, folder: str) -> dict[str, str]:
    """RDMA device -> name of its character device (the file ``ibdev`` says whose it is)."""
    names = snapshot.list(folder) or ()
    owners = {snapshot.word(f"{folder}/{name}/ibdev"): name for name in names if not name.startswith("issm")}
    return {owner: name for owner, name in owners.items() if owner}


def _nodes(snapshot: Snapshot) -> tuple[tuple[str, ...] | None, Mapping[str, str]]:
    """Names in /dev/infiniband, and of those that did not open, why."""
    names = snapshot.list(NODES)
    errors = {name: snapshot.error(f"{NODES}/{name}") for name in names or ()}
    return names, {name: error for name, error in errors.items() if error}


def _netns(snapshot: Snapshot) -> str | None:
    for argv, reply in snapshot.replies_of("rdma"):
        if reply.code == 0 and {"system", "sys"} & set(argv):
            told = json_rows(reply.out)
            if told:
                return string(told[0].get("netns"))
            found = re.match(r"netns\s+(\w+)", first_line(reply.out) or "")
            return found.group(1) if found else None
    return None


def cards(snapshot: Snapshot, kind: str = "0x02") -> dict[str, str]:
    """PCI address -> vendor of the functions of a class: 0x02 network, 0x03 display."""
    found = {}
    for address in snapshot.list(PCI) or ():
        if BDF.fullmatch(address) and (snapshot.word(f"{PCI}/{address}/class") or "").startswith(kind):
            found[address] = snapshot.word(f"{PCI}/{address}/vendor") or ""
    return found or _lspci(output(snapshot, "lspci", "-Dnn") or output(snapshot, "lspci", "-nn"), kind)


def drivers(snapshot: Snapshot, addresses: Iterable[str]) -> dict[str, str]:
    """PCI address -> the kernel driver that has taken the function; those that none took are left out."""
    found = {address: snapshot.target(f"{PCI}/{address}/driver") for address in addresses}
    return {address: driver for address, driver in found.items() if driver}


def _lspci(text: str | None, kind: str) -> dict[str, str]:
    """The same from `lspci -nn`: ``01:00.0 Ethernet controller [0200]: Mellanox ... [15b3:1021]``."""
    lines = re.findall(
        r"^([0-9a-f:.]{7,16}) .*?\[([0-9a-f]{4})\]: .*\[([0-9a-f]{4}):[0-9a-f]{4}\]", text or "", re.MULTILINE
    )
    full = (
        (address if address.count(":") == 2 else f"0000:{address}", code, vendor) for address, code, vendor in lines
    )
    return {address: f"0x{vendor}" for address, code, vendor in full if code.startswith(kind.removeprefix("0x"))}
