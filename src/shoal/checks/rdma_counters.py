"""Counters of RDMA ports and their interfaces. They count since boot, so only their growth is judged.

A node's facts may carry an earlier reading (``before``). Without one, a counter above zero is named and judged by
nobody. Limits: NVIDIA/NVSentinel, health monitor for NICs, default values; where it has none, the row says so.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from shoal.checks.base import Check, Severity, Verdict, fail, ok, skip, unknown, warn
from shoal.checks.views import listed, netdev_of, ports, without_rdma
from shoal.facts.net import Netdev
from shoal.facts.node import NodeFacts

SECOND, MINUTE = 1.0, 60.0
Reading = dict[str, dict[str, int]]  # port or interface -> counter -> value


@dataclass(frozen=True)
class Rule:
    """How much counters may grow: ``most`` of them together in ``per`` seconds; in any time where that is 0."""

    id: str
    title: str
    counters: tuple[str, ...]
    most: float
    per: float
    severity: Severity
    mend: str
    about: str
    of: str = "rdma"  # or "net": counters of the Ethernet interfaces of RDMA devices


def _numbers(*sources: Mapping[str, int | None] | None) -> dict[str, int]:
    return {name: value for source in sources for name, value in (source or {}).items() if value is not None}


def of_ports(node: NodeFacts) -> Reading:
    """Both counter folders of every port."""
    return {port.label: _numbers(port.port.counters, port.port.hw_counters) for port in ports(node)}


def of_interfaces(node: NodeFacts) -> Reading:
    """Statistics of the interfaces that belong to RDMA devices."""
    return {netdev.name: _interface(netdev) for netdev in _interfaces(node)}


def _interfaces(node: NodeFacts) -> Iterator[Netdev]:
    names = dict.fromkeys(name for device in node.rdma.devices or () for name in device.netdevs or ())
    return (found for name in names if (found := node.net.netdev(name)))


def _interface(netdev: Netdev) -> dict[str, int]:
    changes = {"carrier_changes": netdev.carrier_changes}
    return _numbers(netdev.statistics, netdev.ethtool, changes)


def seconds(node: NodeFacts) -> float | None:
    """Time between the two readings by the machine's own clock; None where it is not known or went back."""
    now = node.machine.clock
    then = node.before.machine.clock if node.before else None
    return now - then if now is not None and then is not None and now > then else None


def growth(node: NodeFacts, read: Callable[[NodeFacts], Reading], counters: Collection[str]) -> dict[str, int] | None:
    """Port -> growth of these counters together; None without an earlier reading. A counter that fell was reset."""
    if node.before is None:
        return None
    now, then = read(node), read(node.before)
    return {
        label: sum(
            max(0, values[name] - then[label][name]) for name in counters if name in values and name in then[label]
        )
        for label, values in now.items()
        if label in then
    }


def judge(node: NodeFacts, rule: Rule) -> Verdict:
    """One rule on one node."""
    read = of_ports if rule.of == "rdma" else of_interfaces
    if (none := without_rdma(node)) is not None:
        return none
    now = {
        label: {name: values[name] for name in rule.counters if name in values} for label, values in read(node).items()
    }
    if not any(now.values()):
        return unknown(f"{listed(rule.counters)} was not read, or the driver has no such counter")
    total = listed(
        f"{label} {name} {value}" for label, values in now.items() for name, value in values.items() if value
    )
    if not total:
        return ok(f"{listed(rule.counters)}: 0 since boot")
    grown = growth(node, read, rule.counters)
    if grown is None:
        return skip(f"one reading only; since boot: {total}")
    return _judge_growth(node, rule, grown)


def _judge_growth(node: NodeFacts, rule: Rule, grown: dict[str, int]) -> Verdict:
    elapsed = seconds(node)
    said = listed(f"{label} +{count}" for label, count in grown.items() if count) or "no growth"
    most = rule.most
    if rule.per:
        if elapsed is None:
            return unknown(f"the time between the readings is not known; {said}")
        most, said = rule.most * elapsed / rule.per, f"{said} in {elapsed:.0f} s"
    if all(count <= most for count in grown.values()):
        return ok(f"{listed(rule.counters)}: {said}")
    worst_label = max(grown, key=lambda label: grown[label])
    port = next((item for item in ports(node) if item.label == worst_label), None)
    netdev = netdev_of(node, port) if port else None
    mend = rule.mend.format(
        port=worst_label, device=worst_label.partition("/")[0], netdev=netdev.name if netdev else worst_label
    )
    verdict = fail if rule.severity in {Severity.FATAL, Severity.ERROR} else warn
    return verdict(f"{listed(rule.counters)}: {said}", mend)


def _check(rule: Rule) -> Check[NodeFacts]:
    needs = ("rdma", "net", "machine", "before")
    return Check(rule.id, rule.title, lambda node: judge(node, rule), rule.severity, needs=needs, about=rule.about)


CABLE = "sudo mlxlink -d {device} -m -c  # reseat, clean or replace the cable of {port}"
LOSS = "sudo mlnx_qos -i {netdev}  # look for drops: PFC, MTU, cable"

RULES = (
    Rule(
        "rdma.link-steady",
        "links have stayed up",
        ("link_downed",),
        0,
        0,
        Severity.ERROR,
        CABLE,
        "A link that goes down ends the connections of every rank on it, and the engine with them.",
    ),
    Rule(
        "rdma.link-errors",
        "links are free of integrity errors",
        ("local_link_integrity_errors", "excessive_buffer_overrun_errors"),
        0,
        0,
        Severity.ERROR,
        CABLE,
        "These count faults of the link's hardware beyond what it can correct. A sound link has none at all.",
    ),
    Rule(
        "rdma.symbol-errors",
        "links have few symbol errors",
        ("symbol_error", "symbol_error_phy"),
        10,
        SECOND,
        Severity.WARNING,
        CABLE,
        "A symbol error is a bit pattern that does not exist. Many come from a dirty, bent or half-plugged cable.",
    ),
    Rule(
        "rdma.link-recovery",
        "links seldom retrain",
        ("link_error_recovery",),
        5,
        MINUTE,
        Severity.WARNING,
        CABLE,
        "Each recovery stops the port for a moment. Several in a minute announce a link about to go down.",
    ),
    Rule(
        "rdma.receive-errors",
        "ports receive sound packets",
        ("port_rcv_errors",),
        10,
        SECOND,
        Severity.WARNING,
        CABLE,
        "Packets that arrive damaged are dropped and sent again, and every rank waits for the retransmission.",
    ),
    Rule(
        "rdma.transmit-discards",
        "ports drop few packets on the way out",
        ("port_xmit_discards",),
        100,
        SECOND,
        Severity.WARNING,
        "ibqueryerrors  # the receiver or a switch is congested; port {port}",
        "A packet dropped on the way out met a congested or dead receiver. Some are normal under load, many are not.",
    ),
    Rule(
        "rdma.receiver-ready",
        "receivers were always ready in the end",
        ("rnr_nak_retry_err",),
        0,
        0,
        Severity.ERROR,
        "ray list nodes  # the peer of {port} has stalled: look at its log",
        'The peer answered "receiver not ready" until the retries were used up: its process hangs or has died.\n\n'
        "NCCL reports it as work completion status 13.",
    ),
    Rule(
        "rdma.ack-timeouts",
        "acknowledgements arrive in time",
        ("local_ack_timeout_err",),
        1,
        SECOND,
        Severity.WARNING,
        LOSS,
        "A missing acknowledgement means a lost packet or a dead peer. More than one in a second stalls collectives.",
    ),
    Rule(
        "rdma.retries-left",
        "no connection has used up its retries",
        ("req_transport_retries_exceeded",),
        0,
        0,
        Severity.ERROR,
        LOSS,
        "This is NCCL's work completion status 12: the peer did not answer any of the retries, and the rank failed.",
    ),
    Rule(
        "rdma.slow-restarts",
        "senders seldom restart slowly",
        ("roce_slow_restart",),
        10,
        SECOND,
        Severity.WARNING,
        "mlnx_qos -i {netdev}  # ECN thresholds on the switch",
        "RoCE's congestion control starts a sender over when it was throttled hard: a congested switch port.",
    ),
    Rule(
        "rdma.packets-in-order",
        "few packets are lost or out of order",
        ("out_of_sequence", "packet_seq_err", "implied_nak_seq_err"),
        10,
        SECOND,
        Severity.WARNING,
        LOSS,
        "Sequence errors are packets lost on the way: RoCE then sends everything again from the first one missing.\n\n"
        "The limit of ten in a second is shoal's own; no tool read has one.",
    ),
    Rule(
        "rdma.retransmissions",
        "adaptive retransmission is seldom needed",
        ("roce_adp_retrans", "roce_adp_retrans_to"),
        10,
        SECOND,
        Severity.WARNING,
        LOSS,
        "The card sends again by itself when a packet is lost, which hides the loss from NCCL and costs bandwidth.\n\n"
        "The limit of ten in a second is shoal's own; no tool read has one.",
    ),
    Rule(
        "rdma.checksums",
        "packets arrive with the right checksum",
        ("rx_icrc_encapsulated",),
        0,
        0,
        Severity.WARNING,
        CABLE,
        "A wrong ICRC means that a switch or a card changed a packet: broken hardware, or a device that rewrites RoCE.",
    ),
    Rule(
        "roce.carrier-steady",
        "carriers have stayed up",
        ("carrier_changes",),
        2,
        0,
        Severity.WARNING,
        "sudo ethtool {port}  # reseat or replace the cable of {port}",
        "Each change is a link that went or came. Two are one replug; more between two readings are a flapping link.",
        "net",
    ),
    Rule(
        "roce.frames-sound",
        "frames arrive undamaged",
        ("rx_crc_errors", "rx_crc_errors_phy"),
        10,
        SECOND,
        Severity.WARNING,
        "sudo ethtool -S {port} | grep -i crc  # reseat, clean or replace the cable",
        "A frame with a wrong checksum is dropped by the card. RoCE takes it for loss and sends again.\n\n"
        "The limit of ten in a second is shoal's own; no tool read has one.",
        "net",
    ),
    Rule(
        "roce.discards",
        "interfaces drop few frames for want of room",
        ("rx_discards_phy",),
        100,
        SECOND,
        Severity.WARNING,
        "sudo mlnx_qos -i {port}  # PFC off, or on another priority than the traffic's",
        "The card's buffer was full and no pause held the sender back: flow control is off or on another priority.\n\n"
        "The limit of a hundred in a second is that of port_xmit_discards.",
        "net",
    ),
)

CHECKS: tuple[Check[NodeFacts], ...] = tuple(_check(rule) for rule in RULES)
