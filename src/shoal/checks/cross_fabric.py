"""Group ``cross``: rails, MTU, routes and quality of service between nodes."""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from shoal.checks.base import Check, Scope, Severity, Status, Verdict, check, fail, ok, skip, unknown, warn
from shoal.checks.cross import same, several
from shoal.checks.views import active_hcas, env
from shoal.facts.net import Netdev
from shoal.facts.node import Fleet, NodeFacts

CROSS = Scope.CROSS_NODE
NO_RAILS = "no RoCE interface with an address on two nodes"


@dataclass(frozen=True)
class End:
    """One node's end of a rail: the interface of an active HCA, and its address there."""

    node: NodeFacts
    dev: Netdev
    ip: str
    network: str


def ends(fleet: Fleet) -> Iterator[End]:
    """Every IPv4 address of an interface of an active HCA."""
    for node in fleet.nodes:
        for name in sorted({name for item in active_hcas(node) for name in item.netdevs or ()}):
            dev = node.net.netdev(name)
            if dev is not None:
                yield from (End(node, dev, item.ip, item.network) for item in dev.ipv4)


def rails(fleet: Fleet) -> dict[str, list[End]]:
    """Subnet -> the ends in it."""
    out: dict[str, list[End]] = {}
    for end in ends(fleet):
        out.setdefault(end.network, []).append(end)
    return out


@check("cross.rails", "every rail reaches two nodes", scope=CROSS, needs=("rdma", "net"))
def paired(fleet: Fleet) -> Verdict:
    """An HCA whose subnet is on no other node has nobody to talk to, and NCCL takes it all the same: errno 110."""
    if (alone := several(fleet)) is not None:
        return alone
    found = rails(fleet)
    if not found:
        return skip("no RoCE interface with an IPv4 address") if _looked(fleet) else unknown("addresses were not read")
    lonely = {net: all_ends for net, all_ends in found.items() if len({end.node.name for end in all_ends}) < 2}
    if not lonely:
        return ok(", ".join(f"{net} ({len(all_ends)} ends)" for net, all_ends in found.items()))
    said = "; ".join(
        f"{items[0].node.name} {items[0].dev.name} is alone in {net}" for net, items in list(lonely.items())[:4]
    )
    return fail(said, "give both ends of a cable addresses of one subnet, or leave the HCA out of NCCL_IB_HCA")


def _looked(fleet: Fleet) -> bool:
    return all(
        node.rdma.devices is not None and any(dev.addresses is not None for dev in node.net.netdevs or ())
        for node in fleet.nodes
    )


@check(
    "cross.rail-count", "all nodes are on the same rails", severity=Severity.WARNING, scope=CROSS, needs=("rdma", "net")
)
def complete(fleet: Fleet) -> Verdict:
    """On a switched fabric each rail is one subnet with one HCA of every node. A node that is missing on one makes
    NCCL cross rails there. In a ring without a switch every subnet has two nodes, and that is right.
    """
    if (alone := several(fleet)) is not None:
        return alone
    members = {net: {end.node.name for end in items} for net, items in rails(fleet).items()}
    if not members:
        return skip(NO_RAILS)
    if all(len(names) == 2 for names in members.values()) or len(fleet.nodes) == 2:
        return ok(f"{len(members)} subnet(s) of two nodes: cables, or a pair")
    short = {net: {node.name for node in fleet.nodes} - names for net, names in members.items()}
    missing = [f"{', '.join(sorted(names))} not in {net}" for net, names in short.items() if names]
    if missing:
        return warn("; ".join(missing[:4]), "ip -br address   # on that node: link, address, subnet")
    return ok(", ".join(members))


@check("cross.mtu", "the MTU is the same at both ends of every rail", scope=CROSS, needs=("rdma", "net"))
def mtu(fleet: Fleet) -> Verdict:
    """RoCE takes its packet size from the interface. The larger end's packets are dropped at the smaller one, without
    an error anywhere but a counter.
    """
    if (alone := several(fleet)) is not None:
        return alone
    shared = {net: items for net, items in rails(fleet).items() if len({end.node.name for end in items}) > 1}
    if not shared:
        return skip(NO_RAILS)
    uneven, known = [], 0
    for net, items in shared.items():
        sizes = {f"{end.node.name} {end.dev.name}": end.dev.mtu for end in items if end.dev.mtu is not None}
        known += len(sizes) > 1
        if len(set(sizes.values())) > 1:
            uneven.append(f"{net}: " + ", ".join(f"{name} {size}" for name, size in sizes.items()))
    if uneven:
        small = min((end for items in shared.values() for end in items), key=lambda end: end.dev.mtu or 0)
        return fail("; ".join(uneven), f"on {small.node.name}: sudo ip link set {small.dev.name} mtu 9000")
    if not known:
        return unknown("the MTU was not read at two ends")
    return ok(", ".join(f"{net}: {items[0].dev.mtu}" for net, items in shared.items()))


@check("cross.path-mtu", "full-size packets pass on every rail, both ways", scope=CROSS, needs=("rdma", "net"))
def path_mtu(fleet: Fleet) -> Verdict:
    """Both ends may say 9000, and a switch between them 1500. A ping of full size that may not be split finds it."""
    if (alone := several(fleet)) is not None:
        return alone
    if fleet.pings is None:
        return unknown("no ping was sent: a capture cannot")
    if not fleet.pings:
        return skip(NO_RAILS)
    cut = [item for item in fleet.pings if not item.answered and item.small_answered]
    if not cut:
        answered = sum(item.answered for item in fleet.pings)
        return (
            ok(f"{answered} of {len(fleet.pings)} ways")
            if answered
            else unknown("no ping was answered: see cross.ping")
        )
    said = "; ".join(
        f"{item.source} to {item.target} by {item.device}: {item.mtu} bytes do not pass" for item in cut[:4]
    )
    return fail(
        said, f"ping -M do -s {cut[0].mtu - 28} -I {cut[0].source_ip} {cut[0].target_ip}; raise the switch's MTU"
    )


@check("cross.ping", "every node answers on every rail", severity=Severity.FATAL, scope=CROSS, needs=("rdma", "net"))
def ping(fleet: Fleet) -> Verdict:
    """An address is no proof of a cable: two rails that were swapped at the switch look right on both nodes."""
    if (alone := several(fleet)) is not None:
        return alone
    if fleet.pings is None:
        return unknown("no ping was sent: a capture cannot")
    if not fleet.pings:
        return skip(NO_RAILS)
    dead = [item for item in fleet.pings if not item.answered and not item.small_answered]
    if not dead:
        return ok(f"{len(fleet.pings)} ways")
    said = "; ".join(
        f"{item.source} {item.source_ip} to {item.target} {item.target_ip}: no answer" for item in dead[:4]
    )
    return fail(said, f"ping -I {dead[0].source_ip} {dead[0].target_ip}   # cable, switch port, VLAN, firewall")


@check("cross.routes", "every rail is reached by its own interface", scope=CROSS, needs=("rdma", "net"))
def routes(fleet: Fleet) -> Verdict:
    """The kernel sends by the first route that fits. With two interfaces in one subnet, both rails leave by one."""
    if (alone := several(fleet)) is not None:
        return alone
    found = list(ends(fleet))
    if not found:
        return skip(NO_RAILS)
    if any(end.node.net.routes is None for end in found):
        return unknown("routes were not read: ip route")
    wrong = [text for end in found if (text := _detour(end))]
    if wrong:
        return fail("; ".join(wrong[:4]), "put each rail into a subnet of its own, or add a rule for each source")
    return ok(f"{len(found)} ends")


def _detour(end: End) -> str:
    exact = [route for route in end.node.net.routes or () if route.destination == end.network]
    if not exact or any(route.device == end.dev.name for route in exact):
        return "" if exact or not end.node.net.routes else _no_route(end)
    return f"{end.node.name}: {end.network} leaves by {exact[0].device}, not by {end.dev.name}"


def _no_route(end: End) -> str:
    wider = [route for route in end.node.net.routes or () if _covers(route.destination, end.ip)]
    if wider and wider[0].device != end.dev.name:
        return f"{end.node.name}: no route to {end.network} by {end.dev.name}; it leaves by {wider[0].device}"
    return ""


def _covers(destination: str, ip: str) -> bool:
    if destination == "default":
        return True
    try:
        return ipaddress.ip_address(ip) in ipaddress.ip_network(destination, strict=False)
    except ValueError:
        return False


@check(
    "cross.trust",
    "interfaces trust the same priority on every node",
    severity=Severity.WARNING,
    scope=CROSS,
    needs=("rdma", "net"),
)
def trust(fleet: Fleet) -> Verdict:
    """One node that trusts DSCP and one that trusts PCP put the same packet into different queues."""
    return same(
        fleet, lambda node: _qos(node, "trust"), "mlnx_qos -i INTERFACE --trust dscp   # on every node", Status.WARN
    )


@check(
    "cross.pfc",
    "flow control is on for the same priorities on every node",
    severity=Severity.WARNING,
    scope=CROSS,
    needs=("rdma", "net"),
)
def pfc(fleet: Fleet) -> Verdict:
    """A priority that is lossless at one end only is not lossless."""
    return same(
        fleet, lambda node: _qos(node, "pfc"), "mlnx_qos -i INTERFACE --pfc 0,0,0,1,0,0,0,0   # alike", Status.WARN
    )


def _qos(node: NodeFacts, field: str) -> str | None:
    rows = [
        getattr(dev.qos, field)
        for item in active_hcas(node)
        for name in item.netdevs or ()
        if (dev := node.net.netdev(name))
    ]
    known = {str(row) for row in rows if row is not None}
    return ", ".join(sorted(known)) if known else None


@check("cross.control-subnet", "all nodes have their fabric address in one subnet", scope=CROSS, needs=("env", "net"))
def control_subnet(fleet: Fleet) -> Verdict:
    """VLLM_HOST_IP of every node must be reached from every other one, without a router in between where possible."""
    if (alone := several(fleet)) is not None:
        return alone
    found = {
        node.name: item.network
        for node in fleet.nodes
        if (dev := node.net.holding(env(node, "VLLM_HOST_IP")))
        for item in dev.addresses or ()
        if item.ip == env(node, "VLLM_HOST_IP")
    }
    if not any(env(node, "VLLM_HOST_IP") for node in fleet.nodes):
        return skip("VLLM_HOST_IP is set on no node")
    if len(found) < 2:
        return unknown("VLLM_HOST_IP was found on fewer than two nodes' interfaces")
    said = ", ".join(f"{name} {network}" for name, network in found.items())
    return ok(said) if len(set(found.values())) == 1 else warn(said, "choose addresses of one subnet for VLLM_HOST_IP")


@check(
    "cross.head",
    "all workers know one head, and it is one of the nodes",
    severity=Severity.FATAL,
    scope=CROSS,
    needs=("env",),
)
def head(fleet: Fleet) -> Verdict:
    """Two heads give two clusters, each waiting for the nodes of the other."""
    if (alone := several(fleet)) is not None:
        return alone
    heads = [node for node in fleet.nodes if env(node, "RAY_MODE") == "head"]
    told = {env(node, "RAY_ADDRESS") for node in fleet.nodes if env(node, "RAY_MODE") == "worker"} - {""}
    if not heads and not told:
        return skip("RAY_MODE is set on no node")
    if len(heads) > 1:
        return fail(f"heads: {', '.join(node.name for node in heads)}", "RAY_MODE=worker on all but one")
    if len(told) > 1:
        return fail(f"RAY_ADDRESS: {', '.join(sorted(told))}", "set RAY_ADDRESS alike on every worker")
    if heads and told and next(iter(told)).rpartition(":")[0] != env(heads[0], "VLLM_HOST_IP"):
        said = f"RAY_ADDRESS={next(iter(told))}, and the head {heads[0].name} is {env(heads[0], 'VLLM_HOST_IP')}"
        return fail(said, f"RAY_ADDRESS={env(heads[0], 'VLLM_HOST_IP')}:6379 on every worker")
    return ok(f"{heads[0].name if heads else next(iter(told))}")


@check("cross.firmware", "cards of one kind have one firmware", severity=Severity.WARNING, scope=CROSS, needs=("rdma",))
def firmware(fleet: Fleet) -> Verdict:
    """A node whose HCA alone has an old firmware is the one that is slow, or whose link flaps."""
    if (alone := several(fleet)) is not None:
        return alone
    boards: dict[str, dict[str, list[str]]] = {}
    for node in fleet.nodes:
        for item in node.rdma.devices or ():
            if item.board_id and item.fw_ver:
                boards.setdefault(item.board_id, {}).setdefault(item.fw_ver, []).append(f"{node.name} {item.name}")
    if not boards:
        return (
            unknown("firmware was not read")
            if any(node.rdma.devices for node in fleet.nodes)
            else skip("no RDMA device")
        )
    uneven = [
        f"{board}: " + ", ".join(f"{version} ({names[0]})" for version, names in versions.items())
        for board, versions in boards.items()
        if len(versions) > 1
    ]
    if uneven:
        return warn("; ".join(uneven), "sudo fwupdmgr update, or mlxfwmanager -u   # then a cold start")
    return ok(", ".join(f"{board} {next(iter(versions))}" for board, versions in boards.items()))


FLEET_CHECKS: tuple[Check[Fleet], ...] = (
    paired, complete, mtu, ping, path_mtu, routes, trust, pfc, control_subnet, head, firmware,
)  # fmt: skip
