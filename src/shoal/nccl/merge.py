"""Which ports NCCL fuses into one device: ports of one card, told by the PCI address, whatever they are cabled to.

2.20 to 2.23 fuse two ports of the same PCI address (function and, for VFs, device number set aside), the same
``sys_image_guid`` and link layer. 2.24 and newer fuse up to four, by distance (``NCCL_NET_MERGE_LEVEL``, default PORT).
Read in 2.21.5, 2.22.3, 2.26.2 and 2.30.7; 2.26 does not set the device number of VFs aside, 2.30 does.
"""

from collections.abc import Mapping, Sequence

from shoal.nccl.defaults import whole
from shoal.nccl.environment import integer
from shoal.nccl.hca import Taken
from shoal.nccl.lists import parse
from shoal.nccl.variables import Version

SINCE: Version = (2, 20)
BY_DISTANCE_SINCE: Version = (2, 24)
VFS_AGAIN_SINCE: Version = (2, 30)
NICS, VFS, LEVEL, FORCE = "NCCL_IB_MERGE_NICS", "NCCL_IB_MERGE_VFS", "NCCL_NET_MERGE_LEVEL", "NCCL_NET_FORCE_MERGE"
OLD_SIZE, SIZE = 2, 4
Group = tuple[Taken, ...]


def groups(taken: Sequence[Taken], version: Version, env: Mapping[str, str]) -> tuple[Group, ...]:
    """The ports that NCCL takes, in its order, those of one fused device together."""
    used = [item for item in taken if item.taken]
    if whole(version) < SINCE or integer(env.get(NICS), 1) == 0 or env.get(LEVEL) == "LOC":
        return tuple((item,) for item in used)
    if version < BY_DISTANCE_SINCE:
        return _paired(used, env)
    forced = _forced(used, version, env)
    rest = [item for item in used if not any(item in group for group in forced)]
    return (*forced, *_by_distance(rest, version, env))


def card(pci: str | None, *, vfs: bool) -> str | None:
    """The PCI address with the function set aside, and the device number with it where VFs count as one card."""
    if pci is None or len(pci) < 7:
        return None
    masked = pci[:-1] + "0"
    return f"{masked[:-4]}00{masked[-2:]}" if vfs else masked


def _paired(used: Sequence[Taken], env: Mapping[str, str]) -> tuple[Group, ...]:
    vfs = bool(integer(env.get(VFS), 1))
    out: list[list[Taken]] = []
    for item in used:
        mine = (card(item.device.pci, vfs=vfs), item.device.sys_image_guid, item.port.link_layer)
        for group in out:
            first = group[0]
            other = (card(first.device.pci, vfs=vfs), first.device.sys_image_guid, first.port.link_layer)
            if len(group) < OLD_SIZE and None not in mine and mine == other:
                group.append(item)
                break
        else:
            out.append([item])
    return tuple(map(tuple, out))


def _by_distance(used: Sequence[Taken], version: Version, env: Mapping[str, str]) -> tuple[Group, ...]:
    vfs = version >= VFS_AGAIN_SINCE and bool(integer(env.get(VFS), 1))
    left, out = list(used), []
    while left:
        first = left.pop(0)
        mine = card(first.device.pci, vfs=vfs)
        near = [item for item in left if mine is not None and card(item.device.pci, vfs=vfs) == mine][: SIZE - 1]
        if any(item.port.link_layer != first.port.link_layer for item in near):
            near = []  # NCCL tries them all at once, fails on the link layers, and leaves the first alone
        left = [item for item in left if item not in near]
        out.append((first, *near))
    return tuple(out)


def _forced(used: Sequence[Taken], version: Version, env: Mapping[str, str]) -> tuple[Group, ...]:
    """Groups that ``NCCL_NET_FORCE_MERGE`` names: ``a,b;c,d``."""
    out = []
    for text in filter(None, env.get(FORCE, "").split(";")):
        names = parse("=" + text, version, SIZE)
        group = tuple(item for item in used if names.takes(item.device.name, item.port.number))
        if len(group) == len(names.entries):
            out.append(group)
    return tuple(out)
