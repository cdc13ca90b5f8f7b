"""The rules for ``NCCL_*`` in an environment file: names, values, and what does not go together. Pure."""

import difflib
import re
from collections.abc import Callable

from shoal.checks.env_remarks import Remarks, Settings
from shoal.nccl.variables import (
    ANY_CASE,
    FIRST,
    LAST,
    NOT_NCCL,
    OLD_LEVELS,
    TOLD,
    VARIABLES,
    NcclVariable,
    dotted,
    nearest,
    of_plugin,
)
from shoal.spec.env_table import BY_NAME
from shoal.spec.variable import is_address, wrong

# What strtoll reads with base 0: NCCL takes this much of a value, and drops the rest without a word.
NUMBER = re.compile(r"[+-]?(0[xX][0-9a-fA-F]{1,15}|[0-9]{1,18})")
ON, OFF = {"true", "yes", "on", "y", "enable", "enabled"}, {"false", "no", "off", "n", "disable", "disabled"}
TYPO = 0.93  # as alike as two names are that differ in a letter or two
NUMBERED = re.compile(r"(_|re)[1-9]$")  # mlx5_1, bnxt_re1: also the beginning of mlx5_10
INTERFACE = re.compile(r"(eth[0-9]|en[poxsP][0-9]|bond[0-9]|eno[0-9])")
DEVICE = re.compile(r"(mlx[0-9]_|roce|bnxt_re|irdma)")
VLAN = re.compile(r"\.[0-9]+$|^vlan", re.IGNORECASE)
GID_SINCE = (2, 21)


def names(s: Settings) -> Remarks:
    """Names that NCCL, or this NCCL, does not have."""
    for name in s.entries:
        if not name.startswith("NCCL_") or name in TOLD or of_plugin(name):
            continue
        row = VARIABLES.get(name)
        if row is None:
            yield from _unknown(s, name)
        elif s.nccl and not row.known_in(s.nccl):
            span = f"it came with {dotted(row.first)}" if s.nccl < row.first else f"it went after {_last(row)}"
            yield s.warn(name, f"NCCL {dotted(s.nccl)} does not have it: {span}", "remove it")


def _last(row: NcclVariable) -> str:
    return dotted(row.last or ())


def _unknown(s: Settings, name: str) -> Remarks:
    if name in NOT_NCCL:
        yield s.warn(name, f"not an NCCL variable: {NOT_NCCL[name]}", "remove it")
        return
    near = nearest(name, s.nccl)
    typo = near and difflib.SequenceMatcher(None, name, near[0]).ratio() >= TYPO
    fix = f"{near[0]}={s.get(name)}, if that was meant; else remove it" if near else "remove it"
    say = s.fail if typo else s.warn
    yield say(name, f"no NCCL from {dotted(FIRST)} to {dotted(LAST)} has it: nothing reads it", fix)


def integers(s: Settings) -> Remarks:
    """Integers that NCCL would read as something else, and those out of range."""
    for name in s.entries:
        row, value, ours = VARIABLES.get(name), s.get(name), BY_NAME.get(name)
        if row is None or row.kind != "integer" or not value or (ours and ours.auto and value.lower() == "auto"):
            continue
        found = NUMBER.match(value)
        if found is None or found.end() < len(value):
            number = found[0] if found else "0"
            yield s.fail(name, f"no integer: NCCL reads it as {number} without a word", _meant(name, value))
        elif re.fullmatch(r"[+-]?0[0-9]+", value):
            yield s.warn(name, "a leading 0 makes it octal", f"{name}={int(value)}")
        elif ours and (problem := wrong(ours, str(int(value, 0)))):
            yield s.fail(name, f"{problem}; expected {ours.type}", f"correct {name}")


def _meant(name: str, value: str) -> str:
    word = value.lower()
    number = "1" if word in ON else "0" if word in OFF else ""
    return f"{name}={number}" if number else f"give {name} a number, or remove it"


def enums(s: Settings) -> Remarks:
    """Words that NCCL does not know: it takes its default instead."""
    for name in s.entries:
        row, value, ours = VARIABLES.get(name), s.get(name), BY_NAME.get(name)
        if row is None or row.kind != "enum" or not value or (ours and ours.auto and value.lower() == "auto"):
            continue
        if name in OLD_LEVELS and value.isdigit():
            continue  # the old numbers, 0 to 5, are still read
        word = value.upper() if name in ANY_CASE else value
        if word not in row.values:
            near = [item for item in row.values if item.lower() == value.lower()]
            near = near or difflib.get_close_matches(value.upper(), row.values, n=1)
            fix = f"{name}={near[0]}" if near else f"one of {', '.join(row.values)}"
            yield s.fail(name, "NCCL does not know this word, and takes its default", fix)


def _listed(value: str) -> tuple[str, list[str]]:
    """The signs in front of a list of devices or interfaces, and the names in it, without their ports."""
    signs = re.match(r"[\^=]*", value)
    front = signs[0] if signs else ""
    return front, [name for item in value[len(front) :].split(",") if (name := item.strip().partition(":")[0])]


def devices(s: Settings) -> Remarks:
    """Lists of RDMA devices and of interfaces: their signs, and names that mean more than they say."""
    for name, other, kind in (
        ("NCCL_IB_HCA", INTERFACE, "a network interface, not an RDMA device (rdma link)"),
        ("NCCL_SOCKET_IFNAME", DEVICE, "an RDMA device, not a network interface (ip link)"),
    ):
        value = s.get(name)
        front, listed = _listed(value)
        if front not in {"", "=", "^", "^="}:
            yield s.fail(name, "the signs in front are in the wrong order", f"{name}=^={','.join(listed)}")
        if value and is_address(value):
            yield s.fail(name, "an address: names are wanted", "ip -br address   # names the interface")
        elif wrong_kind := [item for item in listed if other.match(item)]:
            yield s.fail(name, f"{wrong_kind[0]} is {kind}", f"correct {name}")
    yield from _prefix_traps(s)


def _prefix_traps(s: Settings) -> Remarks:
    value = s.get("NCCL_IB_HCA")
    front, listed = _listed(value)
    trap = [item for item in listed if NUMBERED.search(item)]
    if trap and "=" not in front:
        fix = f"NCCL_IB_HCA={front}={value[len(front) :]}"
        what = f"names match by their beginning: {trap[0]} is also {trap[0]}0 to {trap[0]}9"
        yield s.warn("NCCL_IB_HCA", what, f"{fix}   # = in front: exactly these")


def gid_index(s: Settings) -> Remarks:
    """A pinned slot of the GID table, where NCCL would have found the right one."""
    name = "NCCL_IB_GID_INDEX"
    value = s.get(name)
    if not NUMBER.fullmatch(value) or value.startswith("-") or (s.nccl and s.nccl < GID_SINCE):
        return
    slot = "; slot 0 is RoCE v1 on most cards" if value == "0" else ""
    what = f"pinned: slots differ between nodes and move when addresses change{slot}"
    if s.nccl:
        yield s.warn(name, f"{what}. NCCL {dotted(s.nccl)} finds the RoCE v2 slot itself", "remove it")
    else:
        yield s.warn(
            name, f"{what}. NCCL 2.21 and newer find the RoCE v2 slot itself", "remove it, unless NCCL is older"
        )


def traffic_class(s: Settings) -> Remarks:
    """What the number of a traffic class means."""
    value = s.get("NCCL_IB_TC")
    if not NUMBER.fullmatch(value) or not 0 < (number := _int(value)) <= 255:
        return
    dscp, ecn = number >> 2, number & 3
    means = f"{value} is DSCP {dscp} with ECN bits {ecn:02b}"
    if ecn in {1, 2}:
        yield s.info("NCCL_IB_TC", f"{means}; the same on every node, and DSCP {dscp} lossless on every switch")
    else:
        why = "switches cannot mark these packets, so nobody slows down" if ecn == 0 else "every packet says congestion"
        yield s.warn("NCCL_IB_TC", f"{means}: {why}", f"NCCL_IB_TC={dscp << 2 | 2}   # ECN bits 10")


def _int(value: str) -> int:
    return int(value, 0) if value.lower().startswith("0x") else int(value)


def service_level(s: Settings) -> Remarks:
    """A service level where nothing carries it."""
    name = "NCCL_IB_SL"
    value, interfaces, hcas = s.get(name), _listed(s.get("NCCL_SOCKET_IFNAME"))[1], _listed(s.get("NCCL_IB_HCA"))[1]
    if not NUMBER.fullmatch(value) or not 0 < (level := _int(value)) <= 15 or any(map(VLAN.search, interfaces)):
        return
    if any(item.startswith("ib") for item in hcas):
        return
    what = "on RoCE it is the 802.1p priority, which only a packet with a VLAN tag carries"
    if any(item.startswith("roce") for item in hcas):
        high = f" (and {level} is none: they end at 7)" if level > 7 else ""
        where = f"{interfaces[0]} is no VLAN" if interfaces else "no VLAN is named here"
        yield s.warn(name, f"{what}{high}; {where}", "remove it, NCCL_IB_TC sets the priority; or use a VLAN interface")
    else:
        yield s.info(name, f"{what}; on InfiniBand it is the service level")


def timeout(s: Settings) -> Remarks:
    """Less patience than NCCL has by itself."""
    value = s.get("NCCL_IB_TIMEOUT")
    default = 20 if s.nccl and s.nccl >= (2, 23) else 18
    if NUMBER.fullmatch(value) and 0 <= _int(value) < default:
        what = f"less patience than NCCL's own {default}: a short trouble on the link ends the job"
        yield s.warn("NCCL_IB_TIMEOUT", what, "remove it")


def contradictions(s: Settings) -> Remarks:
    """What is set and then switched off, by NCCL's own rules."""
    off, net, plugin = s.get("NCCL_IB_DISABLE") == "1", s.get("NCCL_NET").lower(), s.get("NCCL_NET_PLUGIN")
    rdma = [name for name in s.entries if name.startswith("NCCL_IB_") and name != "NCCL_IB_DISABLE" and s.get(name)]
    if off and net == "ib":
        yield s.fail("NCCL_NET", "NCCL_IB_DISABLE=1 switches off the network that this asks for", "NCCL_IB_DISABLE=0")
    elif off and rdma:
        yield s.warn(
            "NCCL_IB_DISABLE", f"RDMA is off, so {rdma[0]} has no effect", "NCCL_IB_DISABLE=0, or remove the rest"
        )
    elif net == "socket" and rdma:
        yield s.warn("NCCL_NET", f"sockets only, so {rdma[0]} has no effect", "remove NCCL_NET, or the rest")
    if not plugin or plugin.lower() == "none":
        return
    if off:
        what = "a plugin is set, and does not obey it: RDMA may still be used"
        yield s.warn("NCCL_IB_DISABLE", what, "remove NCCL_NET_PLUGIN; for NVIDIA's, NCCL_IBEXT_DISABLE=1")
    elif rdma:
        yield s.info("NCCL_NET_PLUGIN", "the plugin chooses devices and GID instead of NCCL, by its own defaults")


LEFTOVERS: dict[str, tuple[Callable[[str], bool], str]] = {
    "NCCL_P2P_DISABLE": (lambda value: value == "1", "GPUs of one machine no longer talk directly"),
    "NCCL_SHM_DISABLE": (lambda value: value == "1", "ranks of one machine no longer talk over shared memory"),
    "NCCL_NET_GDR_LEVEL": (lambda value: value in {"0", "LOC"}, "no GPUDirect RDMA: all data go through host memory"),
    "NCCL_ALGO": (bool, "forces one algorithm for every size and every collective"),
    "NCCL_PROTO": (bool, "forces one protocol for every size and every collective"),
    "NCCL_TOPO_FILE": (bool, "replaces what NCCL sees of this machine: it must describe exactly this one"),
    "NCCL_GRAPH_FILE": (bool, "replaces NCCL's search: it must have been made on exactly this machine"),
}


def leftovers(s: Settings) -> Remarks:
    """What is good for finding a fault, and slow when it is left behind."""
    for name, (left, what) in LEFTOVERS.items():
        if left(s.get(name)):
            yield s.warn(name, what, "remove it, unless it was measured here")


RULES = (names, integers, enums, devices, gid_index, traffic_class, service_level, timeout, contradictions, leftovers)
