"""Interfaces, addresses, routes, neighbours and sockets as ``ip`` and ``/proc/net`` print them."""

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise, zip_longest
from typing import Any

from shoal.facts.net import Address, Netdev, Route
from shoal.facts.parse.text import integer, outputs, rows, string, whole
from shoal.host.snapshot import Snapshot

ADDR = ("addr", "address", "a", "ad", "add")
LINK = (*ADDR, "link", "l")
ROUTE = ("route", "r", "ro")
NEIGH = ("neigh", "neighbor", "neighbour", "n")
LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp


def _ip(snapshot: Snapshot, objects: tuple[str, ...]) -> Iterator[str]:
    """What ``ip`` printed of one of these objects (its names may be cut short), other tables and families left out."""
    for argv, reply in snapshot.replies_of("ip"):
        plain = [word for word in argv[1:] if not word.startswith("-")]
        if (
            reply.code == 0
            and plain
            and plain[0] in objects
            and not {"get", "table", "rule"} & set(plain)
            and "-6" not in argv
        ):
            yield reply.out


def links(snapshot: Snapshot) -> dict[str, Netdev]:
    """By name, the interfaces that ``ip addr`` or ``ip link`` printed, plain or JSON."""
    found: dict[str, Netdev] = {}
    for text in _ip(snapshot, LINK):
        for dev in [_json_link(row) for row in rows(text)] or list(_text_links(text)):
            found.setdefault(dev.name, dev)
    return {name: dev for name, dev in found.items() if name}


def _json_link(row: dict[str, Any]) -> Netdev:
    told = row.get("flags")
    flags = [word for word in told if isinstance(word, str)] if isinstance(told, list) else None
    info = row.get("linkinfo") if isinstance(row.get("linkinfo"), dict) else {}
    data = info.get("info_data") if isinstance(info, dict) and isinstance(info.get("info_data"), dict) else {}
    kind = string(info.get("info_kind")) if isinstance(info, dict) else None
    data = data if isinstance(data, dict) else {}
    lower = string(row.get("link"))
    return replace(
        _flagged(string(row.get("ifname")) or "", flags, string(row.get("operstate"))),
        index=integer(row.get("ifindex")),
        mtu=integer(row.get("mtu")),
        mac=string(row.get("address")),
        kind=_kind(kind, string(row.get("link_type"))),
        master=string(row.get("master")),
        lower=(lower,) if lower and kind == "vlan" else (),
        vlan_id=integer(data.get("id")) if kind == "vlan" else None,
        bond_mode=string(data.get("mode")) if kind == "bond" else None,
    )


def _flagged(name: str, flags: list[str] | None, state: str | None) -> Netdev:
    """An interface by ``<BROADCAST,UP,LOWER_UP>``. IFF_RUNNING is not printed: it is "up, and the state is UP"."""
    oper = state.lower() if state else None
    if flags is None:
        return Netdev(name, operstate=oper)
    up = "UP" in flags
    running = "RUNNING" in flags or (up and oper in {"up", "unknown"}) if oper else None
    return Netdev(name, operstate=oper, carrier="LOWER_UP" in flags, up=up, running=running)


def _kind(kind: str | None, link_type: str | None) -> str | None:
    if kind in {"vlan", "bond", "bridge"}:
        return kind
    if link_type in {"loopback", "infiniband"}:
        return link_type
    return "virtual" if kind else None


def _text_links(text: str) -> Iterator[Netdev]:
    """``2: eth0@if3: <UP,LOWER_UP> mtu 1500 qdisc ... master br0 state UP``, then ``link/ether MAC ...``."""
    block = re.compile(r"^(\d{1,9}): ([^:@\s]+)(?:@(\S+))?: <([^>]*)> mtu (\d{1,9})(.*)$", re.MULTILINE)
    starts = list(block.finditer(text))
    for this, after in zip_longest(starts, starts[1:]):
        body = text[this.end() : after.start() if after else None]
        state = re.search(r"\bstate (\w+)", this.group(6))
        master = re.search(r"\bmaster (\S+)", this.group(6))
        link = re.search(r"link/(\w+) ([0-9a-f:]+)", body)
        tag = re.search(r"vlan protocol \S+ id (\d{1,4})", body)
        lower = this.group(3) if tag and this.group(3) else None
        yield replace(
            _flagged(this.group(2), this.group(4).split(","), state.group(1) if state else None),
            index=int(this.group(1)),
            mtu=int(this.group(5)),
            mac=link.group(2) if link else None,
            kind="vlan" if tag else _kind(None, link.group(1) if link else None),
            master=master.group(1) if master else None,
            lower=(lower,) if lower else (),
            vlan_id=int(tag.group(1)) if tag else None,
        )


def addresses(snapshot: Snapshot) -> dict[str, tuple[Address, ...]] | None:
    """By interface, its addresses: from ``ip addr``, else from ``/proc/net``; None where neither was read."""
    for text in _ip(snapshot, ADDR):
        found = [(_json_name(row), item) for row in rows(text) for item in _json_addresses(row)]
        return _grouped(found or list(_text_addresses(text)))
    return _from_proc(snapshot)


def _grouped(pairs: list[tuple[str, Address]]) -> dict[str, tuple[Address, ...]]:
    found: dict[str, list[Address]] = {}
    for name, item in pairs:
        found.setdefault(name, []).append(item)
    return {name: tuple(dict.fromkeys(items)) for name, items in found.items()}


def _json_name(row: dict[str, Any]) -> str:
    return string(row.get("ifname")) or ""


def _json_addresses(row: dict[str, Any]) -> Iterator[Address]:
    listed = row.get("addr_info")
    for info in listed if isinstance(listed, list) else ():
        if isinstance(info, dict):
            made = made_address(string(info.get("local")), integer(info.get("prefixlen")), string(info.get("scope")))
            if made:
                yield made


def made_address(ip: str | None, prefix: int | None, scope: str | None = None) -> Address | None:
    """An address, where it is one."""
    try:
        held = ipaddress.ip_interface(f"{ip}/{prefix}")
    except ValueError:
        return None
    return Address(str(held.ip), held.network.prefixlen, scope or "global")


def _text_addresses(text: str) -> Iterator[tuple[str, Address]]:
    name = ""
    for line in text.splitlines():
        if begin := re.match(r"\d{1,9}: ([^:@\s]+)", line):
            name = begin.group(1)
        found = re.search(r"\binet6? ([0-9a-fA-F.:]+)/(\d{1,3})\b(?:.*?\bscope (\w+))?", line)
        made = made_address(found.group(1), int(found.group(2)), found.group(3)) if found else None
        if made:
            yield name, made


def _from_proc(snapshot: Snapshot) -> dict[str, tuple[Address, ...]] | None:
    """IPv4 from the local entries of fib_trie, put on the interface whose connected route holds them; IPv6 as it is."""
    trie, six = snapshot.read("/proc/net/fib_trie"), snapshot.read("/proc/net/if_inet6")
    if trie is None and six is None:
        return None
    found = list(_inet6(six or ""))
    local = set(re.findall(r"\|-- ([\d.]+)\s+/32 host LOCAL", trie or ""))
    connected = [item for item in _proc_routes(snapshot.read("/proc/net/route") or "") if not item.gateway]
    for ip in sorted(local):
        network = next((item for item in connected if _holds(item.destination, ip)), None)
        made = made_address(ip, int(network.destination.partition("/")[2])) if network else None
        if network and made:
            found.append((network.device, made))
        elif ip.startswith("127."):
            found.append(("lo", Address(ip, 8, "host")))
    return _grouped(found)


def _holds(network: str, ip: str) -> bool:
    try:
        return "/" in network and ipaddress.ip_address(ip) in ipaddress.ip_network(network)
    except ValueError:
        return False


def _inet6(text: str) -> Iterator[tuple[str, Address]]:
    scopes = {"00": "global", "10": "host", "20": "link", "40": "site"}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 6 and re.fullmatch(r"[0-9a-f]{32}", words[0]):
            ip = ":".join(words[0][at : at + 4] for at in range(0, 32, 4))
            made = made_address(ip, whole(f"0x{words[2]}"), scopes.get(words[3]))
            if made:
                yield words[5], made


def routes(snapshot: Snapshot) -> tuple[Route, ...] | None:
    """The main table, from ``ip route``, else ``/proc/net/route``."""
    for text in _ip(snapshot, ROUTE):
        told = [_json_route(row) for row in rows(text)] or list(_text_routes(text))
        return tuple(item for item in told if item.device)
    table = snapshot.read("/proc/net/route")
    return None if table is None else tuple(_proc_routes(table))


def _json_route(row: dict[str, Any]) -> Route:
    return Route(
        string(row.get("dst")) or "",
        string(row.get("dev")) or "",
        string(row.get("gateway")),
        string(row.get("prefsrc")),
        integer(row.get("metric")),
    )


def _text_routes(text: str) -> Iterator[Route]:
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 3 and not line.startswith((" ", "\t")):
            said = dict(pairwise(words))
            yield Route(words[0], said.get("dev", ""), said.get("via"), said.get("src"), whole(said.get("metric")))


def _proc_routes(text: str) -> Iterator[Route]:
    """``/proc/net/route``: addresses as hexadecimal numbers of the machine's own byte order, little-endian here."""
    for line in text.splitlines()[1:]:
        words = line.split()
        values = [_little(word) for word in (words[1], words[2], words[7])] if len(words) >= 8 else []
        if len(values) == 3 and None not in values:
            to, via, mask = (str(value) for value in values)
            prefix = int(ipaddress.IPv4Address(mask)).bit_count()
            network = "default" if prefix == 0 and to == "0.0.0.0" else f"{to}/{prefix}"  # noqa: S104 (compared)
            yield Route(network, words[0], None if via == "0.0.0.0" else via, metric=whole(words[6]))  # noqa: S104


def _little(word: str) -> ipaddress.IPv4Address | None:
    if not re.fullmatch(r"[0-9A-Fa-f]{8}", word):
        return None
    return ipaddress.IPv4Address(bytes.fromhex(word)[::-1])


def neighbours(snapshot: Snapshot) -> tuple[tuple[str, str, str], ...] | None:
    """IP, interface and MAC of whom this machine has spoken to, from ``ip neigh``, else ``/proc/net/arp``."""
    for text in _ip(snapshot, NEIGH):
        told = [(string(row.get("dst")), string(row.get("dev")), string(row.get("lladdr"))) for row in rows(text)]
        plain = re.findall(r"^(\S+) dev (\S+) lladdr (\S+)", text, re.MULTILINE)
        return tuple((ip, dev, mac) for ip, dev, mac in told or plain if ip and dev and mac)
    table = snapshot.read("/proc/net/arp")
    if table is None:
        return None
    split = (line.split() for line in table.splitlines()[1:])
    return tuple((words[0], words[5], words[3]) for words in split if len(words) == 6 and words[2] != "0x0")


def listening(snapshot: Snapshot) -> tuple[tuple[str, int], ...] | None:
    """Address and port of the TCP sockets that listen, from ``/proc/net/tcp*``, else ``ss``."""
    files = [text for text in map(snapshot.read, ("/proc/net/tcp", "/proc/net/tcp6")) if text is not None]
    if files:
        return tuple(dict.fromkeys(item for text in files for item in _sockets(text)))
    for text in outputs(snapshot, "ss"):
        found = re.findall(r"^(?:tcp\s+)?LISTEN\s+\d+\s+\d+\s+(\S+):(\d{1,5})\s", text, re.MULTILINE)
        return tuple(dict.fromkeys((ip.strip("[]").partition("%")[0], int(port)) for ip, port in found))
    return None


def _sockets(text: str) -> Iterator[tuple[str, int]]:
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) > 3 and words[3] == LISTEN:
            ip, _, port = words[1].partition(":")
            address = _packed(ip)
            if address and re.fullmatch(r"[0-9A-Fa-f]{4}", port):
                yield address, int(port, 16)


def _packed(word: str) -> str | None:
    """An address as /proc/net/tcp writes it: groups of four bytes, each in the machine's byte order."""
    if not re.fullmatch(r"(?:[0-9A-Fa-f]{8}){1,4}", word) or len(word) not in {8, 32}:
        return None
    data = b"".join(bytes.fromhex(word[at : at + 8])[::-1] for at in range(0, len(word), 8))
    return str(ipaddress.ip_address(data))
