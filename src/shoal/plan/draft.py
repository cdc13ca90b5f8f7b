"""A first ``shoal.yaml`` out of what was read of the machines: each value with where it comes from. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from shoal.facts.node import NodeFacts
from shoal.plan.fabric import Fabric, HcaPort, NodeFabric
from shoal.spec.cluster import FOUND_BY_PLAN

SOCKET = "NCCL_SOCKET_IFNAME"


@dataclass(frozen=True)
class Value:
    """A value and its reason."""

    text: str
    why: str


@dataclass(frozen=True)
class HostDraft:
    """One machine; ``ssh`` is empty where its name is enough."""

    name: str
    ssh: str
    fabric: Value
    gpus: Value
    role: Value


@dataclass(frozen=True)
class Draft:
    """The whole file."""

    cluster: str
    hosts: tuple[HostDraft, ...]
    kind: Value


def draft(cluster: str, destinations: Sequence[str], nodes: Sequence[NodeFacts], fabric: Fabric) -> Draft:
    """A cluster of these machines, in their order; the first is the head."""
    names = _names(destinations, nodes)
    hosts = tuple(
        HostDraft(
            name=name,
            ssh="" if name == destination else destination,
            fabric=fabric_address(node, plan),
            gpus=_gpus(node),
            role=Value("head", "the first host") if place == 0 else Value("worker", ""),
        )
        for place, (name, destination, node, plan) in enumerate(
            zip(names, destinations, nodes, fabric.nodes, strict=True)
        )
    )
    return Draft(cluster, hosts, _kind(fabric))


def _names(destinations: Sequence[str], nodes: Sequence[NodeFacts]) -> tuple[str, ...]:
    """What the machines call themselves, where that is a name for each; else what ssh calls them."""
    own = [_plain((node.machine.hostname or "").partition(".")[0]) for node in nodes]
    if all(own) and len(set(own)) == len(own):
        return tuple(own)
    return tuple(_plain(re.sub(r"^(ssh://)?([^@]*@)?", "", destination)) for destination in destinations)


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name)[:63].strip("-.")


def _chosen(plan: NodeFabric) -> list[HcaPort]:
    return [port for port in plan.hcas if port.chosen]


def fabric_address(node: NodeFacts, plan: NodeFabric) -> Value:
    """The address of the interface that the plan takes for the control plane: the one that all nodes reach."""
    setting = next((setting for setting in plan.settings if setting.name == SOCKET), None)
    netdev = node.net.netdev(setting.value.lstrip("=").partition(",")[0]) if setting else None
    if setting is None or netdev is None or not netdev.ipv4:
        return Value(FOUND_BY_PLAN, "no address was found that the other hosts reach")
    port = next((port for port in _chosen(plan) if port.netdev == netdev.name), None)
    rate = f", {port.rate_gbps:g} Gb/s" if port and port.rate_gbps else ""
    return Value(netdev.ipv4[0].ip, f"on {netdev.name}, of {port.device}{rate}" if port else f"on {netdev.name}")


def _gpus(node: NodeFacts) -> Value:
    found = node.gpu.gpus
    if not found:
        return Value(FOUND_BY_PLAN, "no nvidia-smi answered" if found is None else "no GPU was seen")
    kinds = sorted({gpu.name for gpu in found})
    return Value(str(len(found)), ", ".join(kinds))


def _kind(fabric: Fabric) -> Value:
    layers = {port.link_layer for node in fabric.nodes for port in _chosen(node)}
    # One host without makes it TCP for all, so no port is chosen on the others either.
    unusable = [node.name for node in fabric.nodes if not any(port.usable for port in node.hcas)]
    if without := unusable or [node.name for node in fabric.nodes if not _chosen(node)]:
        return Value("tcp", f"no usable RDMA port on {', '.join(without)}: shoal doctor says why")
    if layers == {"InfiniBand"}:
        return Value("infiniband", "the link layer of every chosen port")
    if layers == {"Ethernet"}:
        return Value("roce", "every chosen port is RDMA over Ethernet")
    return Value(FOUND_BY_PLAN, f"the chosen ports differ: {', '.join(sorted(map(str, layers)))}")
