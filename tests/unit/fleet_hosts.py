"""Hosts as they are seen before a plan is made: two that are fit, to be changed by each test."""

from dataclasses import replace
from typing import Any

from shoal.facts.gpu import Gpu, GpuFacts
from shoal.facts.net import Address, Netdev, NetFacts
from shoal.facts.node import NodeFacts
from shoal.nccl.variables import LAST
from shoal.plan.fabric import plan_fabric
from shoal.plan.fleet import FleetPlan, PlannedFile
from shoal.plan.fleet_make import Given, Seen, plan_fleet
from shoal.spec.cluster import ClusterSpec, parse
from shoal.state.standing import DockerSeen, PythonSeen, Standing, UnitState

PROCESS = """\
cluster: lab
hosts:
  - {name: gpu-1, ssh: me@one, role: head}
  - {name: gpu-2, fabric: 10.0.0.2, gpus: 1}
model: /data/model
runtime: process
python: /opt/vllm/bin/python
"""
COMPOSE = PROCESS.replace("runtime: process\npython: /opt/vllm/bin/python\n", "image: vllm:1\n")
PYZ = PlannedFile(path="shoal.pyz", mode=0o755, sha256="f" * 64, why="shoal itself")


def facts(name: str, address: str, gpus: int = 1) -> NodeFacts:
    """A node with one interface and so many GPUs."""
    net = NetFacts(netdevs=(Netdev("eth0", index=2, up=True, addresses=(Address(address, 24),)),))
    cards = tuple(Gpu(index, "NVIDIA H100", 81559) for index in range(gpus))
    return NodeFacts(name, net=net, gpu=GpuFacts(gpus=cards), env={})


def standing(**more: Any) -> Standing:
    """A host that has all that either runtime needs."""
    docker = DockerSeen(version="27.0", compose=("docker", "compose"), image="sha256:aa [layers]")
    found = Standing(
        home="/home/me", user="me", architecture="x86_64", free=1 << 40, place="/home/me", docker=docker,
        versions=PythonSeen(python="3.12.1", ray="2.56.1", vllm="0.11.0"),
    )  # fmt: skip
    return found.model_copy(update=more)


def seen(*nodes: NodeFacts, **standings: Standing) -> dict[str, Seen]:
    """These nodes with their fabric; a standing by the node's name, with `_` for `-`."""
    fabric = plan_fabric(nodes, LAST)
    return {
        node.name: Seen(standings.get(node.name.replace("-", "_"), standing()), node, part)
        for node, part in zip(nodes, fabric.nodes, strict=True)
    }


def pair(**standings: Standing) -> dict[str, Seen]:
    """The two hosts of the file."""
    return seen(facts("gpu-1", "10.0.0.1"), facts("gpu-2", "10.0.0.2"), **standings)


def plan(text: str = PROCESS, found: dict[str, Seen] | None = None, **files: tuple[PlannedFile, ...]) -> FleetPlan:
    """The plan for a file and its hosts; ``files`` by role."""
    spec = parse(text, "shoal.yaml")
    return plan_fleet(spec, found or pair(), given(spec, **files))


def given(spec: ClusterSpec, **files: tuple[PlannedFile, ...]) -> Given:
    return Given("shoal.yaml", {host.name: files.get(host.role, (PYZ,)) for host in spec.hosts})


def stands(planned: FleetPlan, **changed: dict[str, Any]) -> dict[str, Standing]:
    """Hosts on which the plan runs as it is; what is different there, by the node's name."""
    found = {}
    for number, node in enumerate(planned.nodes, 1):
        units = {
            unit.name: UnitState(runs=True, pid=number, release=planned.digest, digest=unit.digest)
            for unit in node.units
        }
        one = standing(
            current=planned.digest, served=planned.digest, releases=(planned.digest,), units=units,
            plan=planned.model_dump_json(), secrets={"ray.token": "x", "api.key": "y"},
        )  # fmt: skip
        found[node.name] = one.model_copy(update=changed.get(node.name.replace("-", "_"), {}))
    return found


def without(node: NodeFacts) -> NodeFacts:
    """The node, but that it has no GPU."""
    return replace(node, gpu=GpuFacts(gpus=()))


def masked(planned: FleetPlan, text: str) -> str:
    """The text without the plan's digests, which every variable that is read by one more program would change."""
    for node in planned.nodes:
        for unit in node.units:
            text = text.replace(unit.digest, f"<{unit.name}>")
    return text.replace(planned.digest, "<release>")
