"""The plan for several nodes: candidates, rails, shape, and each node's settings. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from shoal.facts.node import NodeFacts
from shoal.nccl.variables import Version
from shoal.plan.fabric.control import control
from shoal.plan.fabric.gids import Decision, decide, good_slots
from shoal.plan.fabric.ports import Node, Seen, look
from shoal.plan.fabric.rails import rails, reaches_all, shape
from shoal.plan.fabric.select import Candidates, candidates
from shoal.plan.fabric.settings import Situation, fusion, notes_for, settings_for
from shoal.plan.fabric.types import Fabric, NodeFabric, Port, Rail, Topology


@dataclass(frozen=True)
class _Picked:
    """The shape of the fabric, and the ports of each node that are used."""

    topology: Topology
    order: tuple[int, ...]
    rails: tuple[Rail, ...]
    chosen: tuple[tuple[Seen, ...], ...]
    routed: bool = False


def plan_fabric(facts: Sequence[NodeFacts], version: Version) -> Fabric:
    """The plan for these nodes with NCCL of this version."""
    fitting = candidates([_look(item, version) for item in facts])
    picked = _pick(fitting)
    good = good_slots(picked.chosen, fitting.family)
    ring = picked.topology == "ring"
    decided = [
        decide(node, ports, slots, version, plugin_out=ring)
        for node, ports, slots in zip(fitting.nodes, picked.chosen, good, strict=True)
    ]
    names = [node.facts.name for node in fitting.nodes]
    order = tuple(names[number] for number in picked.order)
    planes = control(fitting.nodes, [decision.keep for decision in decided])
    fusions = tuple(
        tuple(sorted(len(group) for group in fusion(node, decision.keep, version))) if decision.keep else ()
        for node, decision in zip(fitting.nodes, decided, strict=True)
    )
    nodes = []
    for number, (node, decision, plane) in enumerate(zip(fitting.nodes, decided, planes, strict=True)):
        mine, without = _rails_of(number, picked.rails), _without(fitting)
        situation = Situation(node, decision, plane, picked.topology, order, version, mine, without, fusions)
        nodes.append(_node(situation, facts[number], version))
    return Fabric(version, picked.topology, tuple(nodes), picked.rails, order)


def _look(facts: NodeFacts, version: Version) -> Node:
    """The node as its environment has it; a list of devices that matches nothing is left aside."""
    node = look(facts, version)
    if node.usable or "NCCL_IB_HCA" not in node.env:
        return node
    return look(facts, version, drop=("NCCL_IB_HCA",))


def _node(situation: Situation, facts: NodeFacts, version: Version) -> NodeFabric:
    """One node's part: rows as the environment in force has them, with the plan's verdicts."""
    node = situation.node
    used = {seen.key for seen in situation.decision.keep}
    planned = {seen.key: seen.row for seen in node.ports}
    if "NCCL_IB_HCA" in node.env or not (facts.env or {}).get("NCCL_IB_HCA"):
        rows = [seen.row for seen in node.ports]
    else:
        rows = [seen.row for seen in look(facts, version).ports]
        rows = [row if row.usable is False else planned[row.device, row.port] for row in rows]
    hcas = tuple(replace(row, chosen=(row.device, row.port) in used) for row in rows)
    return NodeFabric(facts.name, hcas, settings_for(situation), notes_for(situation))


def _pick(fitting: Candidates) -> _Picked:
    nodes = fitting.nodes
    usable = {number: node.usable for number, node in enumerate(nodes)}
    found = rails(nodes, usable, fitting.family)
    topology, order = shape(nodes, found)
    everything = tuple(node.usable for node in nodes)
    if _without(fitting):
        nothing: tuple[tuple[Seen, ...], ...] = tuple(() for _ in nodes)
        return _Picked("none" if not any(everything) else "partial", (), found, nothing)
    if topology == "partial" and not any(len(rail.nodes) > 1 for rail in found) and reaches_all(nodes, found):
        return _Picked("switch", (), found, everything, routed=True)
    if topology in {"single", "none"} or (topology == "partial" and not any(len(rail.nodes) > 1 for rail in found)):
        return _Picked(topology, order, found, everything)
    wanted = [rail for rail in found if len(rail.nodes) > 1]
    if topology in {"pair", "switch", "rail-only"}:
        wanted = [rail for rail in wanted if len(rail.nodes) == len(nodes)]
    members = {member for rail in wanted for member in rail.members}
    chosen = tuple(
        tuple(seen for seen in node.usable if (number, seen.key) in members) for number, node in enumerate(nodes)
    )
    return _Picked(topology, order, found, chosen)


def _without(fitting: Candidates) -> tuple[str, ...]:
    """Names of the nodes that are known to have no usable port, where that concerns the others too."""
    return tuple(
        node.facts.name
        for node in fitting.nodes
        if node.facts.rdma.devices is not None and all(seen.row.usable is False for seen in node.ports)
    )


def _rails_of(number: int, found: Sequence[Rail]) -> dict[Port, int]:
    """The number of the rail that each port of a node lies on."""
    return {port: index for index, rail in enumerate(found) for node, port in rail.members if node == number}


__all__ = ["Decision", "plan_fabric"]
