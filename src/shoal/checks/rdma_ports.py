"""RDMA ports: do their links carry, are they of one kind and rate, and which would NCCL take."""

from shoal.checks.base import Check, Severity, Verdict, check, fail, ok, skip, unknown, warn, worst
from shoal.checks.fabric import fabric, hca_setting
from shoal.checks.views import (
    Port,
    active,
    each_device,
    each_port,
    effective_env,
    listed,
    nccl_version,
    netdev_of,
    ports,
    without_rdma,
)
from shoal.facts.node import NodeFacts
from shoal.facts.rdma import RdmaDevice
from shoal.nccl import hca
from shoal.nccl.lists import parse

RDMA = ("rdma",)
PLANNED = ("rdma", "env", "stack")
NO_LINK = ("Polling", "Disabled", "Sleep")
MOST_LINKED = 0.75  # of the cards of one kind: then one without a link is a broken cable, not a free card


@check("rdma.some-port-active", "an RDMA port is ACTIVE", severity=Severity.WARNING, needs=RDMA)
def some_port_active(node: NodeFacts) -> Verdict:
    """With no ACTIVE port NCCL has no fabric, and nodes would talk over TCP.

    It is right for a single machine whose cards have no cable.
    """
    if (none := without_rdma(node)) is not None:
        return none
    up = active(node)
    if up:
        return ok(listed(port.label for port in up))
    if all(port.port.state is None for port in ports(node)):
        return unknown("ports/*/state was not read")
    said = listed(f"{port.label} {port.port.state} ({port.port.phys_state or '?'})" for port in ports(node))
    return warn(said, "rdma link show  # plug in the cable; then: sudo ip link set <interface> up")


@check("rdma.port-active", "every cabled port is ACTIVE", needs=("rdma", "net"))
def port_active(node: NodeFacts) -> Verdict:
    """NCCL uses ACTIVE ports only. A port with a link that stays INIT, ARMED or DOWN is a rail lost without a word.

    Ports without a cable are named and not counted.
    """

    def judge(port: Port) -> Verdict:
        state, phys = port.port.state, port.port.phys_state
        if state is None:
            return unknown(f"{port.label}: ports/{port.port.number}/state was not read")
        if state == "ACTIVE":
            return ok("all cabled ports")
        if phys in NO_LINK or phys is None:
            return skip(f"{port.label}: no link ({phys or state})")
        netdev = netdev_of(node, port)
        mend = f"sudo ip link set {netdev.name} up" if netdev and port.is_ethernet else "sudo systemctl start opensm"
        return fail(f"{port.label}: {state}, physical state {phys}", mend)

    return each_port(node, judge)


@check("rdma.card-linked", "cards of one kind all have a link", needs=RDMA)
def card_linked(node: NodeFacts) -> Verdict:
    """Where nearly all cards of a kind have a link, one without is a cable pulled or broken, not a card kept free.

    A card counts as linked when one of its ports is. Few cards, or a half without cables, raise no alarm.
    """
    if (none := without_rdma(node)) is not None:
        return none
    kinds: dict[str, dict[str, list[Port]]] = {}
    for port in ports(node):
        kind, card = port.device.board_id or port.device.hca_type or "?", _card(port.device)
        kinds.setdefault(kind, {}).setdefault(card, []).append(port)
    return worst(_linked(kind, list(cards.values())) for kind, cards in kinds.items())


def _card(device: RdmaDevice) -> str:
    """What its PCI functions share."""
    return device.sys_image_guid or (device.pci or device.name).rpartition(".")[0]


def _linked(kind: str, cards: list[list[Port]]) -> Verdict:
    if any(port.port.phys_state is None for card in cards for port in card):
        return unknown("ports/*/phys_state was not read")
    dark = [card for card in cards if all(port.port.phys_state in NO_LINK for port in card)]
    said = f"{len(cards) - len(dark)} of {len(cards)} cards {kind} have a link"
    without = listed(f"{port.label} ({port.port.phys_state})" for card in dark for port in card)
    if dark and len(cards) >= 4 and len(cards) - len(dark) >= MOST_LINKED * len(cards):
        names = listed(dict.fromkeys(port.device.name for card in dark for port in card))
        return fail(f"{said}; without: {without}", f"reseat or replace the cable of {names}; then: rdma link show")
    return ok(f"{said}; free: {without}" if dark else said)


@check(
    "rdma.carrier-agrees",
    "interfaces with a carrier have an ACTIVE port",
    severity=Severity.WARNING,
    needs=("rdma", "net"),
)
def carrier_agrees(node: NodeFacts) -> Verdict:
    """An Ethernet interface that is up while its RDMA port is down carries TCP and no RDMA.

    The driver is then half alive, and taking the interface down and up usually mends it."""

    def judge(port: Port) -> Verdict:
        netdev = netdev_of(node, port)
        if netdev is None or netdev.carrier is None:
            return unknown(f"{port.label}: its interface's carrier was not read")
        if netdev.carrier and netdev.operstate == "up" and port.port.is_active is False:
            said = f"{netdev.name} is up with a carrier, {port.label} is {port.port.state}"
            return warn(said, f"sudo ip link set {netdev.name} down && sudo ip link set {netdev.name} up")
        return ok("ports and interfaces agree")

    ethernet = [port for port in ports(node) if port.is_ethernet]
    if ethernet or without_rdma(node):
        return each_port(node, judge, ethernet)
    return skip("no Ethernet port")


@check("rdma.subnet-manager", "InfiniBand has a subnet manager", severity=Severity.FATAL, needs=RDMA)
def subnet_manager(node: NodeFacts) -> Verdict:
    """InfiniBand ports stay INIT until a subnet manager, on a switch or a host, has given them addresses."""
    if (none := without_rdma(node)) is not None:
        return none
    mine = [port for port in ports(node) if port.is_infiniband and port.port.phys_state not in NO_LINK]
    if not mine:
        return skip("no InfiniBand port with a link")
    waiting = [port for port in mine if port.port.state == "INIT" and not port.port.sm_lid]
    if waiting and not any(port.port.is_active for port in mine):
        said = listed(f"{port.label} INIT, sm_lid {port.port.sm_lid or 0}" for port in waiting)
        return fail(said, "sudo systemctl enable --now opensm  # on one host, or start it on the switch")
    if any(port.port.state is None for port in mine):
        return unknown("ports/*/state was not read")
    return ok(listed(f"{port.label} sm_lid {port.port.sm_lid or '?'}" for port in mine if port.port.is_active))


@check("rdma.lid", "ACTIVE InfiniBand ports have an address", needs=RDMA)
def lid(node: NodeFacts) -> Verdict:
    """InfiniBand delivers by LID. A port with LID 0 was passed over by the subnet manager, and nothing reaches it."""
    if (none := without_rdma(node)) is not None:
        return none

    def judge(port: Port) -> Verdict:
        if port.port.lid is None:
            return unknown(f"{port.label}: ports/{port.port.number}/lid was not read")
        return ok("all have one") if port.port.lid else fail(f"{port.label}: lid 0", "sudo systemctl restart opensm")

    mine = [port for port in active(node) if port.is_infiniband]
    return each_port(node, judge, mine) if mine else skip("no ACTIVE InfiniBand port")


@check("rdma.link-layer-chosen", "NCCL_IB_HCA takes ports of one link layer", needs=PLANNED)
def link_layer_chosen(node: NodeFacts) -> Verdict:
    """NCCL takes InfiniBand and Ethernet ports together when both match, and then connects one kind to the other.

    Setting up queue pairs fails with EINVAL or a time-out, often on some ranks only.
    """
    if (none := without_rdma(node)) is not None:
        return none
    if node.env is None:
        return unknown("the node's environment was not read")
    if hca.HCA not in effective_env(node):
        return skip("NCCL_IB_HCA is not set")
    chosen = fabric(node)
    layers = dict.fromkeys(port.port.link_layer for port in chosen)
    said = listed(f"{port.label} {port.port.link_layer}" for port in chosen)
    if len(layers) > 1:
        return fail(f"NCCL_IB_HCA={effective_env(node)[hca.HCA]} takes {said}", _of_main_layer(chosen))
    return ok(said) if chosen else skip("NCCL_IB_HCA takes no ACTIVE port")


@check(
    "rdma.link-layer",
    "ACTIVE ports are of one link layer, or NCCL is told which to take",
    severity=Severity.WARNING,
    needs=PLANNED,
)
def link_layer(node: NodeFacts) -> Verdict:
    """Without NCCL_IB_HCA, NCCL takes every ACTIVE port: an Ethernet port for storage is mixed with InfiniBand.

    shoal names the ports itself when it starts the engine. NCCL started by hand needs the variable.
    """
    if (none := without_rdma(node)) is not None:
        return none
    if hca.HCA in effective_env(node):
        return skip("NCCL_IB_HCA is set: see rdma.link-layer-chosen")
    up = active(node)
    layers = {port.port.link_layer for port in up}
    if None in layers:
        return unknown("ports/*/link_layer was not read")
    if len(layers) > 1:
        return warn(listed(f"{port.label} {port.port.link_layer}" for port in up), _of_main_layer(fabric(node)))
    return ok(f"{len(up)} ACTIVE ports, all {next(iter(layers))}") if up else skip("no ACTIVE port")


def _of_main_layer(chosen: tuple[Port, ...]) -> str:
    """The setting that leaves the smaller link layer out."""
    layers = [port.port.link_layer for port in chosen]
    main = max(dict.fromkeys(layers), key=layers.count)
    return hca_setting(tuple(port for port in chosen if port.port.link_layer == main)) + "  # in .env"


@check("rdma.planned-linked", "every port that NCCL_IB_HCA names is ACTIVE", needs=PLANNED)
def planned_linked(node: NodeFacts) -> Verdict:
    """A device named exactly (NCCL_IB_HCA==...) and without a link is a rail that was planned and is missing.

    NCCL says nothing and uses the others, at a part of the planned bandwidth.
    """
    if (none := without_rdma(node)) is not None:
        return none
    names = parse(effective_env(node).get(hca.HCA), nccl_version(node), hca.LIMIT)
    if node.env is None:
        return unknown("the node's environment was not read")
    if not names.entries or names.excludes or not names.exact:
        return skip("NCCL_IB_HCA names no device exactly")

    def judge(port: Port) -> Verdict:
        if port.port.state is None:
            return unknown(f"{port.label}: its state was not read")
        if port.port.is_active:
            return ok(f"NCCL_IB_HCA={effective_env(node)[hca.HCA]}")
        said = f"{port.label}: {port.port.state}, {port.port.phys_state or '?'}"
        return fail(said, f"rdma link show {port.label}  # cable, switch port, or another NCCL_IB_HCA")

    return each_port(node, judge, [port for port in ports(node) if names.takes(port.device.name, port.port.number)])


@check("rdma.rates-equal", "ports of equal cards run at one rate", severity=Severity.WARNING, needs=RDMA)
def rates_equal(node: NodeFacts) -> Verdict:
    """A port that trained lower than its sisters (a bad cable, half of its lanes) sets the pace of every collective."""
    if (none := without_rdma(node)) is not None:
        return none
    kinds: dict[str, list[Port]] = {}
    for port in active(node):
        kinds.setdefault(f"{port.device.board_id or port.device.hca_type} {port.port.link_layer}", []).append(port)

    def judge(mine: list[Port]) -> Verdict:
        rates = [port.port.rate_gbps for port in mine if port.port.rate_gbps is not None]
        if len(rates) < len(mine):
            return unknown("ports/*/rate was not read")
        slow = [port for port in mine if port.port.rate_gbps != max(rates)]
        if slow:
            said = listed(f"{port.label} {port.port.rate_text or port.port.rate_gbps}" for port in slow)
            mend = f"sudo mlxlink -d {slow[0].device.pci or slow[0].device.name} -m -c  # reseat or replace the cable"
            return warn(f"{said}; others {max(rates):g} Gb/s", mend)
        return ok(f"{len(mine)} at {max(rates):g} Gb/s")

    return worst(judge(mine) for mine in kinds.values()) if kinds else skip("no ACTIVE port")


@check("rdma.functions", "it is known which devices are virtual functions", severity=Severity.INFO, needs=RDMA)
def functions(node: NodeFacts) -> Verdict:
    """A virtual function shares its port with others, and its counters may show nothing. Physical ones are expected."""

    def judge(device: RdmaDevice) -> Verdict:
        if device.is_vf is None:
            return unknown(f"{device.name}: device/physfn was not read")
        return ok(f"{device.name} is a virtual function of {device.physfn or '?'}" if device.is_vf else "physical")

    return each_device(node, judge)


@check("rdma.bonds", "it is known which devices stand for a bond", severity=Severity.INFO, needs=RDMA)
def bonds(node: NodeFacts) -> Verdict:
    """A bonded card is one RDMA device for two ports, and NCCL counts its rate as the kernel reports it."""
    if (none := without_rdma(node)) is not None:
        return none
    found = [device.name for device in node.rdma.devices or () if "bond" in device.name]
    return ok(f"bonded: {listed(found)}") if found else skip("no bonded RDMA device")


@check("rdma.cards", "it is known which ports share a card", severity=Severity.INFO, needs=RDMA)
def cards(node: NodeFacts) -> Verdict:
    """Functions of one card share its PCI Express lanes and its firmware. They are told by sys_image_guid.

    A DGX Spark shows four functions of one card: two for each cage, and each reports the rate of the whole cage.
    """
    if (none := without_rdma(node)) is not None:
        return none
    shared: dict[str, list[str]] = {}
    for device in node.rdma.devices or ():
        if device.sys_image_guid:
            shared.setdefault(device.sys_image_guid, []).append(device.name)
    if not shared:
        return unknown("sys_image_guid was not read")
    return ok("; ".join(" + ".join(names) for names in shared.values()))


CHECKS: tuple[Check[NodeFacts], ...] = (
    some_port_active,
    port_active,
    card_linked,
    carrier_agrees,
    subnet_manager,
    lid,
    link_layer_chosen,
    link_layer,
    planned_linked,
    rates_equal,
    functions,
    bonds,
    cards,
)
