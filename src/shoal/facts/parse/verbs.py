"""What rdma-core's programs say of RDMA devices: ``ibv_devinfo``, ``ibstat``, ``rdma link``, ``ibdev2netdev``."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from shoal.facts.parse.text import known, leading, number, outputs, rows, whole
from shoal.facts.rdma import Gid, RdmaDevice, RdmaPort
from shoal.host.snapshot import Snapshot

LAYERS = {"infiniband": "InfiniBand", "ethernet": "Ethernet"}
PHYSICAL = {"LINK_UP": "LinkUp", "LINKUP": "LinkUp", "POLLING": "Polling", "DISABLED": "Disabled", "SLEEP": "Sleep"}


@dataclass
class Told:
    """What was said of one device: words by name, and by port number."""

    words: dict[str, str] = field(default_factory=dict)
    ports: dict[int, dict[str, str]] = field(default_factory=dict)
    gids: dict[int, dict[int, Gid]] = field(default_factory=dict)
    netdevs: list[str] = field(default_factory=list)

    def port(self, number: int) -> dict[str, str]:
        """The words about one port."""
        return self.ports.setdefault(number, {})


def devices(snapshot: Snapshot) -> dict[str, Told] | None:
    """By device, all that the programs said; None where none of them answered."""
    found: dict[str, Told] = {}
    answered = False
    for program, words, parse in _PARSERS:
        for text in outputs(snapshot, program, *words):
            answered = True
            parse(text, found)
    return found if answered else None


def _devinfo(text: str, found: dict[str, Told]) -> None:
    """``ibv_devinfo`` and ``ibv_devinfo -v``: a name and a value in each line, by device, then by port."""
    told, port = Told(), 0
    for name, value in _pairs(text):
        if name == "hca_id":
            told, port = found.setdefault(value, Told()), 0
        elif name == "port" and value.isascii() and value.isdigit():
            port = int(value[:4])
        elif slot := re.fullmatch(r"gid\[\s*(\d{1,5})\]", name):
            _gid(told, port, int(slot.group(1)), value)
        elif port:
            told.port(port).setdefault(name, value)
        else:
            told.words.setdefault(name, value)


def _gid(told: Told, port: int, index: int, value: str) -> None:
    """``fe80::..., RoCE v2``: rdma-core says ``RoCE v1`` where the kernel says ``IB/RoCE v1``."""
    gid, _, kind = value.partition(",")
    kind = kind.strip()
    told.gids.setdefault(port, {})[index] = Gid(index, gid.strip(), "IB/RoCE v1" if kind == "RoCE v1" else kind or None)


def _ibstat(text: str, found: dict[str, Told]) -> None:
    """``ibstat``: ``CA 'mlx5_0'``, then words with blanks in them."""
    told, port = Told(), 0
    renamed = {
        "firmware version": "fw_ver",
        "base lid": "port_lid",
        "ca type": "hca_type",
        "physical state": "phys_state",
    }
    for line in text.splitlines():
        if begin := re.match(r"CA '([^']+)'", line):
            told, port = found.setdefault(begin.group(1), Told()), 0
        elif begin := re.match(r"\s*Port (\d{1,4}):\s*$", line):
            port = int(begin.group(1))
        elif ":" in line:
            name, _, value = line.strip().partition(":")
            name = renamed.get(name.lower(), name.lower().replace(" ", "_"))
            (told.port(port) if port else told.words).setdefault(name, value.strip())


def _rdma_link(text: str, found: dict[str, Told]) -> None:
    """``rdma link``, plain or JSON."""
    for item in rows(text) or list(_rdma_text(text)):
        name, number = str(item.get("ifname", "")), item.get("port")
        if not name or not isinstance(number, int):
            continue
        told = found.setdefault(name, Told())
        words = {"state": item.get("state"), "phys_state": item.get("physical_state")}
        for key, value in words.items():
            if isinstance(value, str):
                told.port(number).setdefault(key, value)
        if isinstance(item.get("netdev"), str):
            told.netdevs.append(item["netdev"])


def _rdma_text(text: str) -> Iterator[dict[str, Any]]:
    """``link mlx5_0/1 state ACTIVE physical_state LINK_UP netdev eth0``."""
    for line in text.splitlines():
        begin = re.match(r"(?:link )?(\S+)/(\d{1,4}) (.*)", line.strip())
        if begin:
            words = begin.group(3).split()
            yield {
                "ifname": begin.group(1),
                "port": int(begin.group(2)),
                **dict(zip(words[::2], words[1::2], strict=False)),
            }


def _ibdev2netdev(text: str, found: dict[str, Told]) -> None:
    """``mlx5_0 port 1 ==> eth0 (Up)``."""
    for name, netdev in re.findall(r"^(\S+) port \d+ ==> (\S+)", text, re.MULTILINE):
        found.setdefault(name, Told()).netdevs.append(netdev)


def _show_gids(text: str, found: dict[str, Told]) -> None:
    """``show_gids``: ``mlx5_0 1 3 0000:...:c0a8:6401 192.168.100.1 v2 eth0``."""
    line = r"^(\S+)\s+(\d{1,4})\s+(\d{1,5})\s+([0-9a-f:]{2,39})\s+(?:[\d.]+\s+)?v([12])\s*(\S*)"
    for name, port, index, gid, version, netdev in re.findall(line, text, re.MULTILINE):
        kind = "RoCE v2" if version == "2" else "IB/RoCE v1"
        slot = Gid(int(index), gid, kind, netdev or None)
        found.setdefault(name, Told()).gids.setdefault(int(port), {})[int(index)] = slot


_PARSERS: tuple[tuple[str, tuple[str, ...], Callable[[str, dict[str, Told]], None]], ...] = (
    ("ibv_devinfo", (), _devinfo),
    ("ibstat", (), _ibstat),
    ("rdma", ("link",), _rdma_link),
    ("ibdev2netdev", (), _ibdev2netdev),
    ("show_gids", (), _show_gids),
)


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, colon, value = line.strip().partition(":")
        if colon:
            yield name.strip().lower(), value.strip()


def complete(device: RdmaDevice, told: Told | None) -> RdmaDevice:
    """The device with what the kernel's files did not say."""
    if told is None:
        return device
    numbers = sorted({port.number for port in device.ports} | set(told.ports) | set(told.gids))
    read = {port.number: port for port in device.ports}
    ports = tuple(
        _port(read.get(number, RdmaPort(number)), told.ports.get(number, {}), told.gids.get(number))
        for number in numbers
    )
    said = told.words.get
    return replace(
        device,
        ports=ports,
        netdevs=device.netdevs or tuple(dict.fromkeys(told.netdevs)) or device.netdevs,
        fw_ver=device.fw_ver or known(said("fw_ver")),
        board_id=device.board_id or known(said("board_id")),
        hca_type=device.hca_type or known(said("hca_type")),
        node_guid=device.node_guid or known(said("node_guid")),
        sys_image_guid=device.sys_image_guid or known(said("sys_image_guid")),
    )


def _port(port: RdmaPort, said: Mapping[str, str], gids: Mapping[int, Gid] | None) -> RdmaPort:
    rate = number(said.get("rate")) if "rate" in said else None
    table = tuple(gids[index] for index in sorted(gids)) if gids else None
    return replace(
        port,
        state=port.state or _state(said.get("state")),
        phys_state=port.phys_state or _physical(said.get("phys_state")),
        link_layer=port.link_layer or LAYERS.get(said.get("link_layer", "").lower()),
        rate_gbps=rate if port.rate_gbps is None else port.rate_gbps,
        lid=whole(said.get("port_lid")) if port.lid is None else port.lid,
        sm_lid=whole(said.get("sm_lid")) if port.sm_lid is None else port.sm_lid,
        active_mtu=leading(said.get("active_mtu")) if port.active_mtu is None else port.active_mtu,
        gids=table if port.gids is None else port.gids,
    )


def _state(text: str | None) -> str | None:
    """``ACTIVE`` of ``PORT_ACTIVE (4)``, ``Active`` and ``ACTIVE``; ``INIT`` of ``Initializing``."""
    word = (text or "").partition("(")[0].strip().upper().removeprefix("PORT_")
    return {"INITIALIZING": "INIT", "INITIALIZE": "INIT"}.get(word, word) or None


def _physical(text: str | None) -> str | None:
    word = (text or "").partition("(")[0].strip()
    return PHYSICAL.get(word.upper(), word) or None
