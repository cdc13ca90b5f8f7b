"""Which variables make NCCL use the right GID: none where its own choice is right, a range, a pinned slot at last."""

import ipaddress
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shoal.facts.rdma import INFINIBAND, Gid
from shoal.nccl import gid
from shoal.nccl.network import PLUGIN
from shoal.nccl.variables import Version, dotted
from shoal.plan.fabric.ports import Node, Seen, Slot
from shoal.plan.fabric.types import Port

Good = Mapping[Port, Sequence[Slot]]
Wish = tuple[str, str, str]  # name, value, reason


@dataclass(frozen=True)
class Decision:
    """Variables to set, the ports that stay, and what is worth saying."""

    wishes: tuple[Wish, ...] = ()
    keep: tuple[Seen, ...] = ()
    notes: tuple[str, ...] = ()


def good_slots(chosen: Sequence[Sequence[Seen]], family: int) -> tuple[dict[Port, list[Slot]], ...]:
    """For each node and port the slots whose subnet the most nodes share: any of these will do."""
    users: dict[str, set[int]] = {}
    for number, ports in enumerate(chosen):
        for seen in ports:
            for slot in seen.slots[family]:
                users.setdefault(slot.reach, set()).add(number)
    return tuple({seen.key: _best(seen.slots[family], users) for seen in ports} for ports in chosen)


def _best(slots: Sequence[Slot], users: Mapping[str, set[int]]) -> list[Slot]:
    most = max((len(users[slot.reach]) for slot in slots), default=0)
    return [slot for slot in slots if len(users[slot.reach]) == most]


def decide(node: Node, chosen: Sequence[Seen], good: Good, version: Version, *, plugin_out: bool) -> Decision:
    """What this node needs for its chosen ports."""
    keep = tuple(chosen)
    if not keep or keep[0].port.link_layer == INFINIBAND or not all(good.values()):
        return Decision(keep=keep)
    if node.network.kind == "plugin" and not plugin_out:
        return _with_plugin(node, keep, good, version)
    return _internal(node, keep, good, version)


def _fits(seen: Seen, good: Good, version: Version, env: Mapping[str, str]) -> bool:
    choice = gid.choose(seen.port.gids, seen.port.link_layer, version, env)
    return not choice.fails and choice.index in {slot.index for slot in good[seen.key]}


def _all_fit(keep: Sequence[Seen], good: Good, version: Version, env: Mapping[str, str]) -> bool:
    return all(_fits(seen, good, version, env) for seen in keep)


def _common(keep: Sequence[Seen], good: Good) -> int | None:
    """The lowest slot that is right on every port."""
    sets = [{slot.index for slot in good[seen.key]} for seen in keep]
    return min(set.intersection(*sets), default=None)


def _with_plugin(node: Node, keep: tuple[Seen, ...], good: Good, version: Version) -> Decision:
    """A plugin chooses by rules that are not known: it gets a slot, or is left out."""
    pinned, common = node.env.get(gid.INDEX), _common(keep, good)
    if pinned and pinned.isdigit() and all(int(pinned) in {s.index for s in good[seen.key]} for seen in keep):
        return Decision(keep=keep, notes=(f"{gid.INDEX}={pinned} is right here, and the plugin uses it as it is",))
    if common is not None:
        why = (
            f"a network plugin is in use ({node.network.why}), and by which rules it takes a GID is not known; "
            f"a pinned slot it uses as it is: on this node slot {common} holds {_holds(keep[0], common)}"
        )
        return Decision(((gid.INDEX, str(common), why),), keep)
    why = (
        f"a network plugin is in use ({node.network.why}), by which rules it takes a GID is not known, and no one slot "
        "is right on every port: without the plugin NCCL finds the slots itself"
    )
    rest = _internal(node, keep, good, version)
    return Decision(((PLUGIN, "none", why), *rest.wishes), rest.keep, rest.notes)


def _holds(seen: Seen, index: int) -> str:
    slot = next((item for item in seen.port.gids or () if item.index == index), Gid(index, ""))
    return slot.ipv4 or str(slot.address or "nothing")


def _internal(node: Node, keep: tuple[Seen, ...], good: Good, version: Version) -> Decision:
    env = node.env
    if _all_fit(keep, good, version, env):
        return Decision(keep=keep, notes=_pinned_note(node, version))
    if version < gid.AUTOMATIC_SINCE:
        why = f"NCCL {dotted(version)} uses the slot as it is, and takes 0 where none is given"
        return _pin(keep, good, why)
    free = {name: value for name, value in env.items() if name != gid.INDEX}
    unpin: tuple[Wish, ...] = ()
    if gid.INDEX in env:
        why = f"{gid.INDEX}={env[gid.INDEX]} is wrong here: NCCL {dotted(version)} finds the slot itself (-1)"
        unpin = ((gid.INDEX, "-1", why),)
    if _all_fit(keep, good, version, free):
        return Decision(unpin, keep)
    family = _family(keep, good)
    if family == 6 and _all_fit(keep, good, version, {**free, gid.FAMILY: "AF_INET6"}):
        why = "the fabric has IPv6 addresses only, and NCCL looks for IPv4 unless told otherwise"
        return Decision((*unpin, (gid.FAMILY, "AF_INET6", why)), keep)
    if found := _range(keep, good, version, free):
        now = sorted({_now(seen, version, free) for seen in keep})
        why = f"NCCL's own choice is not on the rail ({', '.join(now)}): this range names the rail's addresses"
        six: tuple[Wish, ...] = ((gid.FAMILY, "AF_INET6", "the rail has IPv6 addresses"),) if family == 6 else ()
        return Decision((*unpin, *six, (gid.RANGE, found, why)), keep)
    fails = any(gid.choose(seen.port.gids, seen.port.link_layer, version, free).fails for seen in keep)
    gives_up = "NCCL cannot read the type of every slot and gives up, unless a slot is pinned"
    return _pin(keep, good, gives_up if fails else "no range of addresses tells the right slots from the others")


def _pinned_note(node: Node, version: Version) -> tuple[str, ...]:
    pinned = node.env.get(gid.INDEX)
    if pinned is None or version < gid.AUTOMATIC_SINCE or pinned.startswith("-"):
        return ()
    return (f"{gid.INDEX}={pinned} is right today; slots move when addresses change, and NCCL finds them itself",)


def _now(seen: Seen, version: Version, env: Mapping[str, str]) -> str:
    choice = gid.choose(seen.port.gids, seen.port.link_layer, version, env)
    if choice.fails or choice.index is None:
        return f"{seen.device.name}: {choice.why}"
    return f"{seen.device.name}: slot {choice.index}, {_holds(seen, choice.index)}"


def _family(keep: Sequence[Seen], good: Good) -> int:
    return 6 if all(slot.address.version == 6 for seen in keep for slot in good[seen.key]) else 4


def _range(keep: Sequence[Seen], good: Good, version: Version, env: Mapping[str, str]) -> str | None:
    """The narrowest range with which every port's choice is right: one subnet, or what holds them all."""
    reached = sorted({slot.reach for seen in keep for slot in good[seen.key]})
    networks = [ipaddress.ip_network(text) for text in reached]
    if len({network.version for network in networks}) != 1:
        return None
    wide = networks[0]
    while not all(other.subnet_of(wide) for other in networks):  # type: ignore[arg-type]
        wide = wide.supernet()
    family = {gid.FAMILY: "AF_INET6"} if wide.version == 6 else {}
    for found in (*reached, str(wide)):
        if _all_fit(keep, good, version, {**env, **family, gid.RANGE: found}):
            return found
    return None


def _pin(keep: tuple[Seen, ...], good: Good, why: str) -> Decision:
    """Pin the slot that is right on the most ports; the others cannot be used beside it."""
    counts = Counter(index for seen in keep for index in {slot.index for slot in good[seen.key]})
    index = min(counts, key=lambda item: (-counts[item], item))
    stay = tuple(seen for seen in keep if index in {slot.index for slot in good[seen.key]})
    away = [seen.device.name for seen in keep if seen not in stay]
    note = f"{', '.join(away)}: left out, since the slot is another one there and NCCL takes only one for all"
    wish = (gid.INDEX, str(index), f"{why}: slot {index} holds {_holds(stay[0], index)}")
    return Decision((wish,), stay, (note,) if away else ())
