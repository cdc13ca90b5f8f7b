"""The settings of one node, in the order in which one reads them, and what needs no setting and is worth knowing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from shoal.facts.rdma import CLASS
from shoal.nccl import hca, merge
from shoal.nccl.defaults import whole
from shoal.nccl.network import DISABLE, PLUGIN
from shoal.nccl.variables import VARIABLES, Version, dotted
from shoal.plan.fabric.control import Control
from shoal.plan.fabric.gids import Decision
from shoal.plan.fabric.ports import Node, Seen
from shoal.plan.fabric.types import Confidence, FabricSetting, Port, Topology

SUBNET_AWARE = "NCCL_IB_SUBNET_AWARE_ROUTING"
FOLLOWERS = {
    "GLOO_SOCKET_IFNAME": "Gloo, which vLLM's ranks meet over",
    "TP_SOCKET_IFNAME": "TensorPipe",
    "UCX_NET_DEVICES": "UCX",
}


@dataclass(frozen=True)
class Situation:
    """All that the settings of one node follow from.

    ``without`` names nodes that have no usable port; ``fusions`` has, for each node, the sizes of the devices that NCCL
    would make of its ports.
    """

    node: Node
    decision: Decision
    control: Control
    topology: Topology
    order: tuple[str, ...]
    version: Version
    rails: Mapping[Port, int]
    without: tuple[str, ...]
    fusions: tuple[tuple[int, ...], ...] = ()

    @property
    def chosen(self) -> tuple[Seen, ...]:
        """The ports that are used."""
        return self.decision.keep

    @property
    def hca_list(self) -> str:
        """The exact names of the chosen ports, as NCCL_IB_HCA takes them."""
        return hca_list(self.chosen)


def hca_list(chosen: Sequence[Seen]) -> str:
    """Exact names for NCCL_IB_HCA, with the port where a device has several."""
    counts = {seen.device.name: len(seen.device.ports) for seen in chosen}
    return "=" + ",".join(
        seen.device.name if counts[seen.device.name] == 1 else f"{seen.device.name}:{seen.port.number}"
        for seen in chosen
    )


def fusion(node: Node, chosen: Sequence[Seen], version: Version) -> tuple[merge.Group, ...]:
    """The devices that NCCL makes of these ports, if nobody keeps it from that."""
    kept = {name: value for name, value in node.env.items() if name not in {merge.NICS, merge.LEVEL, merge.FORCE}}
    env = {**kept, hca.HCA: hca_list(chosen)}
    return merge.groups(hca.ports(node.facts.rdma.devices or (), version, env), version, env)


def settings_for(situation: Situation) -> tuple[FabricSetting, ...]:
    """The node's settings."""
    env = situation.node.facts.env or {}
    return tuple(
        FabricSetting(name, value, reason, evidence, confidence, _undo(name, env.get(name, ""), value))
        for name, value, reason, evidence, confidence in _wishes(situation)
    )


def _undo(name: str, before: str, value: str) -> str:
    if before == value:
        return "nothing: it is set so already"
    return f"{name}={before}" if before else f"remove {name}"


_Wish = tuple[str, str, str, str, Confidence]


def _wishes(situation: Situation) -> Iterator[_Wish]:
    if situation.chosen:
        yield _names(situation)
        where = f"{CLASS}/{situation.chosen[0].device.name}/ports/{situation.chosen[0].port.number}/gids"
        for name, value, reason in situation.decision.wishes:
            yield name, value, reason, where, "high"
        yield from _of_the_shape(situation)
    elif situation.without and _would_take(situation.node):
        yield _no_rdma(situation)
    yield from _control(situation)


def _names(situation: Situation) -> _Wish:
    ports = situation.chosen
    layer = {"Ethernet": "RoCE"}.get(ports[0].port.link_layer or "", ports[0].port.link_layer or "")
    rails = len({situation.rails.get(seen.key) for seen in ports})
    left = sum(seen.key not in {item.key for item in ports} for seen in situation.node.ports)
    reason = f"{len(ports)} {layer} port(s) on {rails} rail(s), by their exact names"
    reason += f"; {left} other port(s) left out" if left else ""
    sure: Confidence = "high" if situation.topology not in {"partial", "single"} else "medium"
    if situation.topology == "partial":
        reason += "; no rail reaches every node"
    evidence = ", ".join(f"{CLASS}/{seen.device.name}/ports/{seen.port.number}" for seen in ports)
    return hca.HCA, situation.hca_list, reason, evidence, sure


def _of_the_shape(situation: Situation) -> Iterator[_Wish]:
    cables = "the subnets: each joins two nodes"
    if situation.topology == "ring":
        if not any(name == PLUGIN for name, *_ in situation.decision.wishes):
            yield PLUGIN, "none", "a ring of cables needs NCCL's own network, which knows which cable", cables, "medium"
        if VARIABLES[SUBNET_AWARE].known_in(situation.version):
            why = "each neighbour is reached by another cable: NCCL takes the device in the neighbour's subnet"
            yield SUBNET_AWARE, "1", why, cables, "medium"
    if fused := _fused_cables(situation):
        why = f"NCCL would fuse {fused} into one device by their PCI address, and they are different cables"
        yield merge.NICS, "0", why, "the PCI addresses and the subnets", "high"
    elif len(set(situation.fusions)) > 1 and any(size > 1 for sizes in situation.fusions for size in sizes):
        why = "NCCL would fuse ports on some nodes and not on others, and the devices would not match"
        yield merge.NICS, "0", why, "the PCI addresses of all nodes", "medium"
    if situation.topology == "ring" and len(situation.order) > 3:
        why = f"only neighbours are joined: ranks in the order of the cables, {' - '.join(situation.order)}"
        yield "NCCL_ALGO", "Ring", why, cables, "medium"
    if situation.topology == "rail-only":
        why = "no route leads from rail to rail: rings stay on one rail"
        yield "NCCL_CROSS_NIC", "0", why, "the routes", "medium"


def _fused_cables(situation: Situation) -> str:
    """Ports of different cables that NCCL would fuse, where that does harm; empty where it does not."""
    if situation.topology != "ring" and not (situation.topology in {"pair", "partial"} and _has_twins(situation)):
        return ""
    for group in fusion(situation.node, situation.chosen, situation.version):
        if len({situation.rails.get(item.key) for item in group}) > 1:
            return " + ".join(item.device.name for item in group)
    return ""


def _has_twins(situation: Situation) -> bool:
    """Whether one card shows itself in two PCI domains, as in a DGX Spark."""
    cards: dict[str | None, set[str]] = {}
    for device in situation.node.facts.rdma.devices or ():
        cards.setdefault(device.sys_image_guid, set()).add((device.pci or "").partition(":")[0])
    return any(guid is not None and len(domains) > 1 for guid, domains in cards.items())


def _would_take(node: Node) -> bool:
    return node.network.kind == "internal" and any(seen.port.is_active for seen in node.ports)


def _no_rdma(situation: Situation) -> _Wish:
    missing = ", ".join(situation.without)
    reason = f"no usable RDMA port on {missing}: NCCL would take one that cannot connect. The table says what to mend"
    return DISABLE, "1", reason, CLASS, "low"


def _control(situation: Situation) -> Iterator[_Wish]:
    control = situation.control
    if control.name is None:
        return
    where = f"/sys/class/net/{control.name}"
    yield "NCCL_SOCKET_IFNAME", f"={control.name}", f"the bootstrap: {control.reason}", where, control.confidence
    for name, who in FOLLOWERS.items():
        yield name, control.name, f"{who}: the same interface, as a plain name", where, control.confidence


def notes_for(situation: Situation) -> tuple[str, ...]:
    """What needs no setting and is worth knowing."""
    return tuple(_notes(situation))


def _notes(situation: Situation) -> Iterator[str]:
    node, facts = situation.node, situation.node.facts
    if facts.rdma.devices is None:
        yield "the RDMA devices are not known: nothing is chosen for them"
    elif not facts.rdma.devices:
        yield "no RDMA device: NCCL uses sockets"
    elif not situation.chosen:
        yield "no RDMA port is used: NCCL uses sockets"
    if situation.control.name is None:
        yield f"no interface is chosen for the control plane: {situation.control.reason}"
    yield from situation.decision.notes
    hidden = (facts.env or {}).get(hca.HCA, "")
    if hidden and hca.HCA not in node.env and hidden.lower() != "auto" and facts.rdma.devices:
        yield f"{hca.HCA}={hidden} matches no usable port: NCCL would use sockets without a word"
    if len({sum(sizes) for sizes in situation.fusions if sizes}) > 1:
        counts = ", ".join(str(sum(sizes)) for sizes in situation.fusions)
        yield f"the nodes use different numbers of ports ({counts}): NCCL wants the same everywhere"
    yield from _ring_notes(situation)
    yield from _spark_notes(situation)


def _ring_notes(situation: Situation) -> Iterator[str]:
    if situation.topology != "ring":
        return
    if not VARIABLES[SUBNET_AWARE].known_in(situation.version):
        first = dotted(VARIABLES[SUBNET_AWARE].first)
        yield f"NCCL {dotted(situation.version)} cannot tell the cables of a ring apart: {first} and newer can"
    elif len(situation.chosen) > 2:
        yield f"{SUBNET_AWARE} with more than two devices: see that each of them carries bytes"
    if len(situation.order) > 3:
        yield f"ranks must follow the cables: {' - '.join(situation.order)}"


def _spark_notes(situation: Situation) -> Iterator[str]:
    gpus = situation.node.facts.gpu.gpus or ()
    if any("GB10" in gpu.name for gpu in gpus):
        yield "GB10 has no GPUDirect RDMA: that NCCL reports it as disabled is normal, NCCL_NET_GDR_LEVEL has no effect"
    if _has_twins(situation) and whole(situation.version) >= merge.SINCE and len(situation.chosen) > 2:
        yield "each cable ends in two PCI functions, which share what PCIe carries: a second cable adds little"
