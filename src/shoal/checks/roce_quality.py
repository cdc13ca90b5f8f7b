"""RoCE: MTU, rate, and the classes of traffic that keep it from losing packets."""

from collections.abc import Callable

from shoal.checks.base import Check, Severity, Verdict, check, fail, ok, skip, unknown, warn, worst
from shoal.checks.fabric import addresses, interfaces, roce_ports, without_interfaces, without_roce
from shoal.checks.rdma_counters import growth, of_interfaces, of_ports, seconds
from shoal.checks.views import Port, above, effective_env, is_virtual, listed, netdev_of
from shoal.facts.net import Netdev
from shoal.facts.node import NodeFacts
from shoal.nccl.environment import integer

NEEDS = ("rdma", "net", "env", "stack")
TC, SL = "NCCL_IB_TC", "NCCL_IB_SL"
LARGE_MTU = 4200  # bytes: RoCE's largest payload, 4096, and its headers
RECOMMENDED_MTU = 9000
LARGEST = 4096
PAUSES_A_SECOND = 1000
PAUSES = tuple(f"{way}_prio{priority}_pause" for way in ("rx", "tx") for priority in range(8))
CNPS = ("np_cnp_sent", "rp_cnp_handled")


def _each_interface(node: NodeFacts, judge: Callable[[Netdev], Verdict]) -> Verdict:
    return without_interfaces(node) or worst(judge(netdev) for netdev in interfaces(node))


@check("roce.mtu", "the fabric's interfaces carry RoCE's largest payload", severity=Severity.WARNING, needs=NEEDS)
def mtu(node: NodeFacts) -> Verdict:
    """RoCE's payload is 4096 bytes at most, and the next step that fits Ethernet's usual 1500 is 1024.

    Small payloads cost rate and processor time. 9000 is what NVIDIA recommends, the same on every hop.
    """

    def judge(netdev: Netdev) -> Verdict:
        if netdev.mtu is None:
            return unknown(f"{netdev.name}: its MTU was not read")
        if netdev.mtu < LARGE_MTU:
            mend = f"sudo ip link set {netdev.name} mtu {RECOMMENDED_MTU}  # on every node and switch; keep it so"
            return warn(f"{netdev.name}: MTU {netdev.mtu}", mend)
        return ok(f"{netdev.name} {netdev.mtu}")

    return _each_interface(node, judge)


@check("roce.active-mtu", "RDMA uses the MTU that its interface has", severity=Severity.WARNING, needs=NEEDS)
def active_mtu(node: NodeFacts) -> Verdict:
    """The port takes its MTU from the interface when that comes up. It may still have an older, smaller one."""

    def judge(port: Port) -> Verdict:
        netdev = netdev_of(node, port)
        if port.port.active_mtu is None or netdev is None or netdev.mtu is None:
            return unknown(f"{port.label}: ibv_devinfo (active_mtu) or the interface's MTU was not read")
        if netdev.mtu >= LARGE_MTU and port.port.active_mtu < LARGEST:
            said = f"{port.label}: active_mtu {port.port.active_mtu}, {netdev.name} has {netdev.mtu}"
            return warn(said, f"sudo ip link set {netdev.name} down && sudo ip link set {netdev.name} up")
        return ok(f"{port.label} {port.port.active_mtu}")

    return without_roce(node) or worst(judge(port) for port in roce_ports(node))


@check("roce.equal-mtu", "the fabric's interfaces have one MTU", severity=Severity.WARNING, needs=NEEDS)
def equal_mtu(node: NodeFacts) -> Verdict:
    """Rails with different MTUs are nearly always one that was forgotten. NCCL spreads its traffic evenly over them."""
    if (none := without_interfaces(node)) is not None:
        return none
    sizes = {netdev.name: netdev.mtu for netdev in interfaces(node) if netdev.mtu is not None}
    if not sizes:
        return unknown("no MTU was read")
    if len(set(sizes.values())) > 1:
        small = min(sizes, key=lambda name: sizes[name])
        said = listed(f"{name} {size}" for name, size in sizes.items())
        return warn(said, f"sudo ip link set {small} mtu {max(sizes.values())}")
    return ok(f"{next(iter(sizes.values()))} on {listed(sizes)}")


@check("roce.speed", "interfaces run at their port's rate", needs=(*NEEDS, "machine"))
def speed(node: NodeFacts) -> Verdict:
    """An interface that is slower than the RDMA port says was negotiated down after the port came up."""
    if is_virtual(node) and not without_roce(node):
        return skip("a virtual machine: virtual functions report any speed")

    def judge(port: Port) -> Verdict:
        netdev = netdev_of(node, port)
        if netdev is None or not netdev.speed_mbps or netdev.speed_mbps < 0 or port.port.rate_gbps is None:
            return unknown(f"{port.label}: /sys/class/net/{netdev.name if netdev else '?'}/speed or rate was not read")
        said = f"{netdev.name} {netdev.speed_mbps} Mb/s, {port.label} {port.port.rate_gbps:g} Gb/s"
        if netdev.speed_mbps < port.port.rate_gbps * 1000:
            return fail(said, f"sudo ethtool {netdev.name}  # cable, switch port, autonegotiation")
        return ok(said)

    return without_roce(node) or worst(judge(port) for port in roce_ports(node))


@check("roce.full-duplex", "interfaces send and receive at once", needs=NEEDS)
def full_duplex(node: NodeFacts) -> Verdict:
    """Half duplex on a fast link is a negotiation gone wrong: it sends or receives, never both at once."""

    def judge(netdev: Netdev) -> Verdict:
        if netdev.duplex is None or netdev.duplex.lower() == "unknown":
            return unknown(f"/sys/class/net/{netdev.name}/duplex was not read")
        if netdev.duplex.lower() != "full":
            return fail(f"{netdev.name}: {netdev.duplex}", f"sudo ethtool -s {netdev.name} autoneg on")
        return ok("full duplex")

    return _each_interface(node, judge)


def traffic_class(node: NodeFacts) -> int | None:
    """NCCL_IB_TC as NCCL reads it; None where it is not set."""
    value = integer(effective_env(node).get(TC), -1)
    return value if value >= 0 else None


def _without_class(node: NodeFacts) -> Verdict | None:
    """Why a traffic class cannot be judged; None where NCCL sets one."""
    if (none := without_interfaces(node)) is not None:
        return none
    if node.env is None:
        return unknown("the node's environment was not read")
    return skip(f"{TC} is not set") if traffic_class(node) is None else None


def _priority(node: NodeFacts) -> int:
    """The priority that the class's DSCP maps to, as cards and switches map it by default: its three upper bits."""
    return (traffic_class(node) or 0) >> 5


def _said_class(node: NodeFacts) -> str:
    value = traffic_class(node) or 0
    return f"{TC}={value} is DSCP {value >> 2} (priority {value >> 5}), ECN bits {value & 3:02b}"


@check("roce.trust", "flow control goes by the DSCP that NCCL sets", severity=Severity.WARNING, needs=NEEDS)
def trust(node: NodeFacts) -> Verdict:
    """NCCL_IB_TC sets the DSCP of packets. A card that trusts the VLAN priority instead sorts them all into class 0.

    It matters where PFC is on: the class that PFC protects is then not the one that the traffic is in.
    """

    def judge(netdev: Netdev) -> Verdict:
        if netdev.qos.trust is None:
            return unknown(f"{netdev.name}: mlnx_qos -i {netdev.name} was not asked for the trust state")
        if netdev.qos.trust == "dscp" or (netdev.qos.pfc is not None and not any(netdev.qos.pfc)):
            return ok(f"{netdev.name} trusts {netdev.qos.trust}")
        said = f"{netdev.name} trusts {netdev.qos.trust}; {_said_class(node)}"
        return warn(said, f"sudo mlnx_qos -i {netdev.name} --trust dscp")

    return _without_class(node) or _each_interface(node, judge)


@check("roce.pfc", "PFC, where it is on, covers the priority of NCCL's traffic", severity=Severity.WARNING, needs=NEEDS)
def pfc(node: NodeFacts) -> Verdict:
    """PFC holds a sender back before a buffer overflows, for single priorities. On another it does nothing for NCCL.

    A direct cable between two nodes works well without. Behind switches, all hops must agree.
    """

    def judge(netdev: Netdev) -> Verdict:
        bits = netdev.qos.pfc
        if bits is None:
            return unknown(f"{netdev.name}: mlnx_qos -i {netdev.name} (or dcb pfc show) was not asked")
        if not any(bits):
            return ok(f"{netdev.name}: off; fine on a direct cable")
        on = listed(str(number) for number, bit in enumerate(bits) if bit)
        want = _priority(node)
        if not bits[want]:
            pattern = ",".join("1" if number == want else "0" for number in range(8))
            return warn(
                f"{netdev.name}: on for priority {on}; {_said_class(node)}",
                f"sudo mlnx_qos -i {netdev.name} --pfc {pattern}",
            )
        return ok(f"{netdev.name}: on for priority {on}")

    return _without_class(node) or _each_interface(node, judge)


@check("roce.ecn", "congestion control is on for NCCL's traffic", severity=Severity.WARNING, needs=NEEDS)
def ecn(node: NodeFacts) -> Verdict:
    """With ECN bits in NCCL_IB_TC, switches mark packets instead of dropping them, and the cards must act on the marks.

    Both sides are needed: the receiver notifies (np) and the sender slows down (rp), for that priority.
    """

    def judge(netdev: Netdev) -> Verdict:
        np, rp, want = netdev.qos.ecn_np, netdev.qos.ecn_rp, _priority(node)
        if np is None or rp is None:
            return unknown(f"/sys/class/net/{netdev.name}/ecn is there with DOCA-OFED only")
        off = [name for name, bits in (("np", np), ("rp", rp)) if len(bits) <= want or not bits[want]]
        if off:
            paths = [f"/sys/class/net/{netdev.name}/ecn/roce_{name}/enable/{want}" for name in off]
            said = f"{listed(paths)} is 0; {_said_class(node)}"
            return warn(said, f"echo 1 | sudo tee {' '.join(paths)}")
        return ok(f"{netdev.name}: on for priority {want}")

    if (none := _without_class(node)) is not None:
        return none
    return _each_interface(node, judge) if (traffic_class(node) or 0) & 3 else skip(_said_class(node))


@check("roce.sl-tagged", "a service level has a VLAN tag to travel in", severity=Severity.WARNING, needs=NEEDS)
def sl_tagged(node: NodeFacts) -> Verdict:
    """On RoCE, NCCL_IB_SL becomes the priority in the VLAN tag. Packets without a tag lose it, and nothing warns.

    NCCL_IB_TC works without a VLAN.
    """
    if (none := without_interfaces(node)) is not None:
        return none
    if node.env is None:
        return unknown("the node's environment was not read")
    level = integer(effective_env(node).get(SL), -1)
    if level <= 0:
        return skip(f"{SL} is {'0' if level == 0 else 'not set'}")
    tagged = [item.name for netdev in interfaces(node) for item, _ in addresses(node, netdev) if item.kind == "vlan"]
    if tagged:
        return ok(f"{SL}={level} on {listed(tagged)}")
    said = f"{SL}={level}, no VLAN on {listed(netdev.name for netdev in interfaces(node))}: it has no effect"
    return warn(said, f"{SL}=  # in .env: empty; {TC} sets the class")


@check(
    "roce.pauses",
    "the fabric seldom pauses without marking",
    severity=Severity.WARNING,
    needs=(*NEEDS, "before", "machine"),
)
def pauses(node: NodeFacts) -> Verdict:
    """Many pause frames and no congestion notifications mean that ECN thresholds lie above those of PFC: every
    congestion stops whole links, and the stop spreads through the fabric."""
    if (none := without_interfaces(node)) is not None:
        return none
    counts = {name: values for name, values in of_interfaces(node).items() if any(key in PAUSES for key in values)}
    if not counts:
        return unknown("ethtool -S was not asked, or the driver counts no pauses")
    grown, elapsed = growth(node, of_interfaces, PAUSES), seconds(node)
    if grown is None or elapsed is None:
        total = sum(value for values in counts.values() for key, value in values.items() if key in PAUSES)
        return skip(f"one reading only; since boot: {total} pauses") if total else ok("no pauses since boot")
    marks = sum((growth(node, of_ports, CNPS) or {}).values())
    said = f"{sum(grown.values())} pauses and {marks} congestion notifications in {elapsed:.0f} s"
    if sum(grown.values()) > PAUSES_A_SECOND * elapsed and marks == 0:
        return warn(said, "lower the switches' ECN thresholds below those of PFC, for NCCL's priority")
    return ok(said)


@check("roce.dcbx", "it is known who sets flow control", severity=Severity.INFO, needs=NEEDS)
def dcbx(node: NodeFacts) -> Verdict:
    """DCBX lets a switch set PFC on the card. Controlled by firmware, it may undo what mlnx_qos has set."""

    def judge(netdev: Netdev) -> Verdict:
        if netdev.qos.dcbx is None:
            return unknown(f"{netdev.name}: mlnx_qos -i {netdev.name} was not asked")
        return ok(f"{netdev.name}: DCBX by {netdev.qos.dcbx}")

    return _each_interface(node, judge)


@check("roce.fec", "it is known how links correct errors", severity=Severity.INFO, needs=NEEDS)
def fec(node: NodeFacts) -> Verdict:
    """Links of 100 Gb/s and more correct bit errors by FEC, usually RS. Both ends must use the same."""

    def judge(netdev: Netdev) -> Verdict:
        return (
            ok(f"{netdev.name}: {netdev.fec}")
            if netdev.fec
            else unknown(f"ethtool --show-fec {netdev.name} was not asked")
        )

    return _each_interface(node, judge)


@check("roce.stacked", "it is known which bonds and VLANs carry RoCE", severity=Severity.INFO, needs=NEEDS)
def stacked(node: NodeFacts) -> Verdict:
    """The GID of a bond or a VLAN names that interface, and the address must be on it, not on the ports below."""
    if (none := without_interfaces(node)) is not None:
        return none
    upper = [item.name for netdev in interfaces(node) for item in above(node, netdev)[1:]]
    return ok(listed(dict.fromkeys(upper))) if upper else skip("no bond or VLAN above the fabric's interfaces")


CHECKS: tuple[Check[NodeFacts], ...] = (
    mtu,
    active_mtu,
    equal_mtu,
    speed,
    full_duplex,
    trust,
    pfc,
    ecn,
    sl_tagged,
    pauses,
    dcbx,
    fec,
    stacked,
)
