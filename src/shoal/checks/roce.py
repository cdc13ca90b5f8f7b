"""RoCE: the GID tables of the fabric's ports, and the slots that NCCL would use."""

from shoal.checks.base import Check, Severity, Verdict, check, fail, ok, skip, unknown, warn, worst
from shoal.checks.fabric import (
    give_address,
    hca_setting,
    plugin,
    roce_ports,
    said_version,
    without_roce,
)
from shoal.checks.views import Port, above, effective_env, listed, nccl_version, netdev_of
from shoal.facts.node import NodeFacts
from shoal.facts.rdma import ROCE_V2, Gid
from shoal.nccl import gid as nccl_gid
from shoal.nccl.environment import integer

NEEDS = ("rdma", "net", "env", "stack")


def _v2(port: Port) -> list[Gid]:
    """RoCE v2 slots with an IPv4 address."""
    return [gid for gid in port.gids if gid.type == ROCE_V2 and gid.ipv4]


def _unread(ports: tuple[Port, ...]) -> list[str]:
    """Ports whose GIDs, or whose types, nobody read."""
    return [
        port.label
        for port in ports
        if port.port.gids is None or (port.gids and not any(gid.type or gid.error for gid in port.gids))
    ]


@check("roce.gid-v2-ipv4", "the fabric has a RoCE v2 GID with an IPv4 address", severity=Severity.FATAL, needs=NEEDS)
def gid_v2_ipv4(node: NodeFacts) -> Verdict:
    """RoCE v2 sends over UDP and IP, from the address in the GID. NCCL looks for one that is IPv4.

    An interface without an IPv4 address has link-local GIDs only, and transfers end with work completion status 12.
    """
    if (none := without_roce(node)) is not None:
        return none
    mine = roce_ports(node)
    found = [f"{port.label} slot {gid.index} {gid.ipv4}" for port in mine for gid in _v2(port)]
    if found:
        return ok(listed(found))
    if unread := _unread(mine):
        return unknown(f"GIDs or their types were not read: {listed(unread)}")
    held = listed(f"{port.label} slot {gid.index} {gid.type or '?'} {gid.gid}" for port in mine for gid in port.gids)
    return fail(f"no such GID; {held or 'the GID tables are empty'}", give_address(node, mine[0]))


@check(
    "roce.gid-on-every-port",
    "every port of the fabric has a RoCE v2 GID with an IPv4 address",
    severity=Severity.WARNING,
    needs=NEEDS,
)
def gid_on_every_port(node: NodeFacts) -> Verdict:
    """NCCL takes every ACTIVE port that matches NCCL_IB_HCA, with or without an address, and fails on the one without.

    Give it an address, or name the others in NCCL_IB_HCA.
    """
    if (none := without_roce(node)) is not None:
        return none
    mine = roce_ports(node)
    have = tuple(port for port in mine if _v2(port))
    if unread := _unread(mine):
        return unknown(f"GIDs or their types were not read: {listed(unread)}")
    if not have:
        return skip("none has one: see roce.gid-v2-ipv4")
    lack = [port for port in mine if not _v2(port)]
    if lack:
        mend = f"{give_address(node, lack[0])}; or in .env: {hca_setting(have)}"
        return warn(f"without: {listed(port.label for port in lack)}", mend)
    return ok(f"{len(mine)} ports")


@check("roce.gid-chosen", "NCCL chooses a GID that peers can reach", needs=NEEDS)
def gid_chosen(node: NodeFacts) -> Verdict:
    """NCCL picks one slot of each port's GID table, by rules that changed with its versions.

    A slot of RoCE v1, a link-local one or an empty one fails when queue pairs connect (EINVAL, ENODATA, status 12).
    """

    def judge(port: Port) -> Verdict:
        choice = nccl_gid.choose(port.port.gids, port.port.link_layer, nccl_version(node), effective_env(node))
        if choice.index is None:
            return unknown(f"{port.label}: {choice.why}")
        slot = next((gid for gid in port.port.gids or () if gid.index == choice.index), None)
        said = f"{port.label}: {said_version(node)} takes slot {choice.index}: {choice.why}"
        if choice.fails or slot is None or slot.is_zero or slot.is_link_local or slot.type not in {None, ROCE_V2}:
            return fail(said, _mend_choice(node, port))
        return ok(f"{port.label} slot {choice.index} {slot.ipv4 or slot.gid}")

    return _roce_unless_plugin(node) or worst(judge(port) for port in roce_ports(node))


def _mend_choice(node: NodeFacts, port: Port) -> str:
    if integer(effective_env(node).get(nccl_gid.INDEX), -1) >= 0:
        return f"remove {nccl_gid.INDEX} from .env: NCCL 2.21 and newer finds the slot"
    usable = _v2(port)
    return f"{nccl_gid.INDEX}={usable[0].index}  # in .env" if usable else give_address(node, port)


def _roce_unless_plugin(node: NodeFacts) -> Verdict | None:
    if (none := without_roce(node)) is not None:
        return none
    loaded = plugin(node)
    return unknown(f"a plugin chooses the GID, by rules of its own: {loaded}") if loaded else None


@check("roce.gid-index-valid", "the pinned GID index holds a RoCE v2 address", severity=Severity.FATAL, needs=NEEDS)
def gid_index_valid(node: NodeFacts) -> Verdict:
    """A pinned index is used as it is. An empty, link-local or RoCE v1 slot fails at the first connection."""
    if (none := without_roce(node)) is not None:
        return none
    index = effective_env(node).get(nccl_gid.INDEX)
    if node.env is None:
        return unknown("the node's environment was not read")
    if index is None or integer(index, -1) < 0:
        return skip(f"{nccl_gid.INDEX} is not set")
    number = integer(index, -1)

    def judge(port: Port) -> Verdict:
        if port.port.gids is None:
            return unknown(f"{port.label}: its GIDs were not read")
        slot = next((gid for gid in port.port.gids if gid.index == number), None)
        if slot is None or slot.is_zero:
            said = f"{port.label}: slot {number} is empty"
        elif slot.is_link_local or slot.type not in {None, ROCE_V2}:
            said = f"{port.label}: slot {number} is {slot.type or '?'} {slot.gid}"
        else:
            return ok(f"{port.label} slot {number} {slot.ipv4 or slot.gid}")
        return fail(said, _mend_choice(node, port))

    return worst(judge(port) for port in roce_ports(node))


@check("roce.gid-interface", "NCCL's GID belongs to the port's own interface", needs=NEEDS)
def gid_interface(node: NodeFacts) -> Verdict:
    """A GID of another interface (a macvlan, another network namespace) cannot be used by this process: ENODEV.

    The port's own interface, its bond and its VLANs are right.
    """

    def judge(port: Port) -> Verdict:
        netdev = netdev_of(node, port)
        choice = nccl_gid.choose(port.port.gids, port.port.link_layer, nccl_version(node), effective_env(node))
        slot = next((gid for gid in port.port.gids or () if gid.index == choice.index), None)
        if choice.index is None or slot is None or slot.is_zero:
            return unknown(f"{port.label}: see roce.gid-chosen")
        if slot.ndev is None or netdev is None:
            return unknown(f"{port.label}: gid_attrs/ndevs/{slot.index} was not read")
        mine = {item.name for item in above(node, netdev)} | set(port.device.netdevs or ())
        if slot.ndev not in mine:
            said = f"{port.label}: slot {slot.index} belongs to {slot.ndev}, not to {listed(sorted(mine))}"
            return fail(said, f"sudo ip link delete {slot.ndev}  # or: NCCL_IB_ADDR_RANGE=<the fabric's subnet>")
        return ok(f"{port.label} slot {slot.index} on {slot.ndev}")

    return _roce_unless_plugin(node) or worst(judge(port) for port in roce_ports(node))


@check("roce.ipv6-only", "NCCL looks for the kind of address that the fabric has", needs=NEEDS)
def ipv6_only(node: NodeFacts) -> Verdict:
    """On a fabric with IPv6 addresses alone NCCL finds nothing, unless NCCL_IB_ADDR_FAMILY says AF_INET6."""
    if (none := _roce_unless_plugin(node)) is not None:
        return none
    mine = [gid for port in roce_ports(node) for gid in port.gids if gid.type == ROCE_V2 and not gid.is_link_local]
    six = [gid for gid in mine if not gid.ipv4]
    family = effective_env(node).get(nccl_gid.FAMILY, "AF_INET")
    if not mine:
        return unknown("no GID of a global address was read: see roce.gid-v2-ipv4")
    wanted = six if family == "AF_INET6" else [gid for gid in mine if gid.ipv4]
    if wanted:
        return ok(f"{family}: {listed(str(gid.ipv4 or gid.address) for gid in wanted)}")
    right = "AF_INET6" if six else "AF_INET"
    said = f"NCCL looks for {family}, GIDs have {listed(str(gid.ipv4 or gid.address) for gid in mine)}"
    return fail(said, f"{nccl_gid.FAMILY}={right}  # in .env, on every node")


CHECKS: tuple[Check[NodeFacts], ...] = (
    gid_v2_ipv4,
    gid_on_every_port,
    gid_chosen,
    gid_index_valid,
    gid_interface,
    ipv6_only,
)
