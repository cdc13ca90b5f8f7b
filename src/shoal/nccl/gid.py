"""Which slot of a port's GID table NCCL uses, by version, with its quirks. Read in the sources of 2.10 to 2.30.7.

======================  =============================================================================================
up to 2.20              ``NCCL_IB_GID_INDEX``, 0 where it is not set. Nothing is looked at.
2.21 to 2.25            not set (or negative): looks for the slot. Gives up where a slot's type cannot be read.
2.22 and newer          on InfiniBand: 0, or the slot of ``NCCL_IB_ROUTABLE_FLID_GID_INDEX`` where that has a FLID
2.26 and newer          passes over a slot whose type cannot be read
======================  =============================================================================================
"""

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from shoal.facts.rdma import INFINIBAND, Gid
from shoal.nccl.defaults import default
from shoal.nccl.environment import integer
from shoal.nccl.variables import Version, dotted

AUTOMATIC_SINCE: Version = (2, 21)
INFINIBAND_SINCE: Version = (2, 22)
PASSES_OVER_SINCE: Version = (2, 26)
RANGE_CRASH_BEFORE: Version = (2, 23)
INDEX, FAMILY, RANGE, ROCE = (
    "NCCL_IB_GID_INDEX",
    "NCCL_IB_ADDR_FAMILY",
    "NCCL_IB_ADDR_RANGE",
    "NCCL_IB_ROCE_VERSION_NUM",
)
FLID = "NCCL_IB_ROUTABLE_FLID_GID_INDEX"
ZERO, LINK_LOCAL, MAPPED = bytes(16), bytes.fromhex("fe80000000000000"), bytes(10) + b"\xff\xff"
MAPPED_MULTICAST = bytes.fromhex("ff0e") + bytes(8) + b"\xff\xff"


@dataclass(frozen=True)
class Choice:
    """The slot that NCCL uses, and why. ``index`` is None where it is not known; ``fails``: NCCL gives up there."""

    index: int | None
    why: str
    fails: bool = False


@dataclass(frozen=True)
class Wanted:
    """What the automatic choice looks for."""

    family: int = 4
    base: bytes = b""
    length: int = 0
    roce: int = 2
    range: str = ""

    def in_range(self, raw: bytes) -> bool:
        """Whether a GID lies in the range; no range takes all, a negative length takes nothing."""
        if self.length <= 0:
            return self.length == 0
        part = raw[12:] if self.family == 4 else raw
        shift = len(part) * 8 - self.length
        return int.from_bytes(part) >> shift == int.from_bytes(self.base) >> shift

    @property
    def words(self) -> str:
        """Such as ``an IPv4 address in 10.0.0.0/8``."""
        return f"an IPv{self.family} address" + (f" in {self.range}" if self.length else "")


@dataclass(frozen=True)
class _Slot:
    """A slot as NCCL sees it. ``type`` is None where reading it fails."""

    index: int
    raw: bytes
    type: str | None

    @cached_property
    def family(self) -> int:
        return 4 if self.raw[:12] in {MAPPED, MAPPED_MULTICAST} else 6

    @cached_property
    def valid(self) -> bool:
        return self.raw != ZERO and self.raw[:8] != LINK_LOCAL

    @cached_property
    def roce(self) -> int | None:
        kind = self.type or ""
        return 1 if kind.startswith(("IB/RoCE v1", "RoCE v1")) else 2 if kind.startswith("RoCE v2") else None

    @cached_property
    def words(self) -> str:
        address = ipaddress.IPv6Address(self.raw)
        return f"{self.type or 'type not readable'}, {address.ipv4_mapped or address}"


class _GivesUp(Exception):
    """NCCL ends the connection: a type that it wants cannot be read."""


class _NotKnown(Exception):
    """The choice depends on a type that nobody read."""


def choose(table: Sequence[Gid] | None, link_layer: str | None, version: Version, env: Mapping[str, str]) -> Choice:
    """The slot that NCCL of this version uses on a port with this table; ``table`` None where it was not read."""
    if link_layer is None:
        return Choice(None, "the link layer is not known")
    if link_layer == INFINIBAND and version >= INFINIBAND_SINCE:
        return _infiniband(table, env)
    choice = _roce(table, version, env)
    if link_layer == INFINIBAND:
        why = f"InfiniBand: NCCL {dotted(version)} addresses peers by LID, the slot has no effect"
        return Choice(choice.index, why)
    return choice


def _roce(table: Sequence[Gid] | None, version: Version, env: Mapping[str, str]) -> Choice:
    pinned = integer(env.get(INDEX), default(INDEX, version) or 0)
    if pinned >= 0 or version < AUTOMATIC_SINCE:
        return Choice(pinned, _pinned(pinned, table, version, env))
    if table is None:
        return Choice(None, "the GID table was not read")
    if RANGE in env and "/" not in env[RANGE] and version < RANGE_CRASH_BEFORE:
        return Choice(0, f"NCCL {dotted(version)} crashes on {RANGE} without a /LENGTH", fails=True)
    return _automatic(table, version, wanted(env), env)


def _pinned(index: int, table: Sequence[Gid] | None, version: Version, env: Mapping[str, str]) -> str:
    origin = f"{INDEX}={env[INDEX]}" if INDEX in env else f"NCCL {dotted(version)} takes slot 0 unless told otherwise"
    if table is None:
        return f"{origin}, used as it is"
    slot = next((item for item in _slots(table) if item.index == index), None)
    holds = "is empty" if slot is None or slot.raw == ZERO else f"is {slot.words}"
    return f"{origin}, used as it is: slot {index} {holds}"


def _infiniband(table: Sequence[Gid] | None, env: Mapping[str, str]) -> Choice:
    routable = integer(env.get(FLID), 1)
    slot = next((item for item in _slots(table or ()) if item.index == routable), None)
    if slot is not None and slot.raw[4:6] != b"\0\0":
        return Choice(routable, f"InfiniBand: slot {routable} has a routable FLID")
    return Choice(0, "InfiniBand: slot 0")


def wanted(env: Mapping[str, str]) -> Wanted:
    """What the environment tells the automatic choice to look for. What is malformed is ignored, as NCCL does."""
    family = 6 if env.get(FAMILY) == "AF_INET6" else 4
    roce = integer(env.get(ROCE), 2)
    text = env.get(RANGE, "")
    address, slash, length = text.partition("/")
    try:
        base = ipaddress.IPv4Address(address) if family == 4 else ipaddress.IPv6Address(address)
    except ValueError:
        return Wanted(family, roce=roce)
    bits = _length(length)
    if not slash or "%" in address or bits > base.max_prefixlen:
        return Wanted(family, roce=roce)
    return Wanted(family, base.packed, bits, roce, text)


def _length(text: str) -> int:
    digits = text.strip()
    number = digits[1:] if digits[:1] in {"+", "-"} else digits
    number = number[: next((at for at, char in enumerate(number) if char not in "0123456789"), len(number))]
    value = int(number) if 0 < len(number) < 6 else 0
    return -value if digits.startswith("-") else value


def _slots(table: Sequence[Gid]) -> Iterator[_Slot]:
    """The table in order, every gap in it as one empty slot."""
    typed = any(gid.type for gid in table)
    known = {gid.index: gid for gid in table if gid.index >= 0}
    after = 0
    for index in sorted(known):
        if index > after:
            yield _Slot(after, ZERO, None)
        gid = known[index]
        raw = gid.address.packed if gid.address else ZERO
        unread = gid.type is None and not gid.error and not typed and raw != ZERO
        yield _Slot(index, raw, "?" if unread else gid.type)
        after = index + 1


def _automatic(table: Sequence[Gid], version: Version, want: Wanted, env: Mapping[str, str]) -> Choice:
    slots = list(_slots(table)) or [_Slot(0, ZERO, None)]
    current = slots[0]
    try:
        for candidate in slots[1:]:
            if _is_better(candidate, current, version, want):
                current = candidate
    except _GivesUp as error:
        why = f"NCCL {dotted(version)} gives up: {error}. NCCL 2.26 and newer pass over such a slot"
        return Choice(current.index, why, fails=True)
    except _NotKnown:
        return Choice(None, "the types of the GIDs were not read")
    return Choice(current.index, _reason(current, want, env))


def _is_better(candidate: _Slot, current: _Slot, version: Version, want: Wanted) -> bool:
    matches = candidate.family == want.family and want.in_range(candidate.raw)
    if matches and candidate.family != current.family:
        # The first slot of the wanted family is taken whatever its version, and even where it is empty or link-local.
        return True
    if not matches or not candidate.valid:
        return False
    mine, other = _version(current, version), _version(candidate, version)
    return (mine != other or not current.valid) and other == want.roce


def _version(slot: _Slot, version: Version) -> int | None:
    if slot.type == "?":
        raise _NotKnown
    if slot.type is None and version < PASSES_OVER_SINCE:
        raise _GivesUp(f"the type of slot {slot.index} cannot be read")
    return slot.roce


def _reason(chosen: _Slot, want: Wanted, env: Mapping[str, str]) -> str:
    words = "empty" if chosen.raw == ZERO else chosen.words
    if chosen.family != want.family or not want.in_range(chosen.raw):
        return f"no slot holds {want.words}: NCCL takes slot {chosen.index} without a word, and that is {words}"
    if not chosen.valid:
        return f"slot {chosen.index} is {words}: no peer can be reached by it"
    if chosen.roce != want.roce:
        return f"no RoCE v{want.roce} slot holds {want.words}: slot {chosen.index} is {words}"
    told = ", ".join(f"{name}={env[name]}" for name in (FAMILY, RANGE, ROCE) if name in env)
    return f"the first RoCE v{want.roce} slot with {want.words}: {words}" + (f" ({told})" if told else "")
