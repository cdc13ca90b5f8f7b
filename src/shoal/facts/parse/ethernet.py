"""Ethernet's details: ``ethtool``, ``mlnx_qos``, ``dcb``, and OFED's files below ``/sys/class/net``."""

import re
from collections.abc import Iterable

from shoal.facts.net import Qos
from shoal.facts.parse.text import flag, outputs
from shoal.host.snapshot import Snapshot

CLASS = "/sys/class/net"
PRIORITIES = range(8)


def _ethtool(snapshot: Snapshot, name: str, *options: str) -> str | None:
    """What ``ethtool`` said of the interface with exactly these options."""
    for argv, reply in snapshot.replies_of("ethtool", name):
        if reply.code == 0 and tuple(word for word in argv[1:] if word.startswith("-")) == options:
            return reply.out
    return None


def statistics(snapshot: Snapshot, name: str) -> dict[str, int]:
    """``ethtool -S``, by name."""
    text = _ethtool(snapshot, name, "-S") or _ethtool(snapshot, name, "--statistics") or ""
    return {key: int(value) for key, value in re.findall(r"^\s*(\S+): (\d{1,20})\s*$", text, re.MULTILINE)}


def speed(snapshot: Snapshot, name: str) -> int | None:
    """Mb/s by ``ethtool``: ``Speed: 200000Mb/s``."""
    found = re.search(r"^\s*Speed: (\d{1,9})Mb/s", _ethtool(snapshot, name) or "", re.MULTILINE)
    return int(found.group(1)) if found else None


def driver(snapshot: Snapshot, name: str) -> str | None:
    """The driver by ``ethtool -i``."""
    found = re.search(r"^driver: (\S+)", _ethtool(snapshot, name, "-i") or "", re.MULTILINE)
    return found.group(1) if found else None


def fec(snapshot: Snapshot, name: str) -> str | None:
    """The forward error correction in use: ``RS``, ``BaseR``, ``Off``."""
    text = _ethtool(snapshot, name, "--show-fec") or ""
    found = re.search(r"^\s*Active FEC encodings?: (.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else None


def qos(snapshot: Snapshot, name: str) -> Qos:
    """Trust, PFC and ECN: OFED's files first, then ``mlnx_qos``, then ``dcb``."""
    mlnx, dcb = _mlnx_qos(snapshot, name), _dcb(snapshot, name)
    trust = (snapshot.word(f"{CLASS}/{name}/qos/trust") or "").lower()
    return Qos(
        trust=trust if trust in {"pcp", "dscp"} else mlnx.trust or dcb.trust,
        pfc=_pfc_bits(snapshot.word(f"{CLASS}/{name}/qos/pfc")) or mlnx.pfc or dcb.pfc,
        ecn_np=_ecn(snapshot, name, "roce_np"),
        ecn_rp=_ecn(snapshot, name, "roce_rp"),
        dcbx=mlnx.dcbx,
    )


def _pfc_bits(word: str | None) -> tuple[bool, ...] | None:
    return _bits((word or "").replace(",", " ").split())


def _bits(words: Iterable[str]) -> tuple[bool, ...] | None:
    bits = [flag(word) for word in words]
    return tuple(bool(bit) for bit in bits) if len(bits) == len(PRIORITIES) and None not in bits else None


def _ecn(snapshot: Snapshot, name: str, point: str) -> tuple[bool, ...] | None:
    """``/sys/class/net/IF/ecn/roce_np/enable/<priority>``."""
    values = [flag(snapshot.word(f"{CLASS}/{name}/ecn/{point}/enable/{priority}")) for priority in PRIORITIES]
    return None if None in values else tuple(bool(value) for value in values)


def _mlnx_qos(snapshot: Snapshot, name: str) -> Qos:
    """``mlnx_qos -i IF``: DCBX mode, ``Priority trust state: dscp``, and the PFC table's ``enabled`` row."""
    text = next(outputs(snapshot, "mlnx_qos", name), "")
    trust = re.search(r"^Priority trust state: (\w+)", text, re.MULTILINE)
    dcbx = re.search(r"^DCBX mode: (.+)$", text, re.MULTILINE)
    pfc = re.search(r"PFC configuration:.*?enabled\s+([01 \t]+)", text, re.DOTALL)
    mode = dcbx.group(1).lower() if dcbx else ""
    return Qos(
        trust=trust.group(1).lower() if trust else None,
        pfc=_bits(pfc.group(1).split()) if pfc else None,
        dcbx="os" if mode.startswith("os") else "firmware" if mode.startswith("firmware") else None,
    )


def _dcb(snapshot: Snapshot, name: str) -> Qos:
    """``dcb pfc show dev IF`` and ``dcb app show dev IF``: an entry by DSCP makes the interface trust DSCP."""
    shown = next(outputs(snapshot, "dcb", "pfc", name), "")
    table = re.search(r"prio-pfc ((?:\d:\w+\s*){8})", shown)
    apps = [reply.out for _, reply in snapshot.replies_of("dcb", "app", name) if reply.code == 0]
    return Qos(
        trust=("dscp" if "dscp-prio" in apps[0] else "pcp") if apps else None,
        pfc=_bits(entry.partition(":")[2] for entry in table.group(1).split()) if table else None,
    )
