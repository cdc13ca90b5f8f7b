"""Hosts looked at, and the plan for them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from shoal.errors import ConfigError, ShoalError
from shoal.facts.node import NodeFacts
from shoal.facts.read import node_facts
from shoal.facts.sources import request
from shoal.host.base import Host
from shoal.host.fanout import fanout
from shoal.host.gather import unpacked
from shoal.host.send import Step, carry_out
from shoal.host.ssh import SshHost
from shoal.nccl.variables import LAST
from shoal.ops import pyz
from shoal.ops.fabric import version_of
from shoal.ops.fleet.desk import Desk, desk
from shoal.ops.fleet.hosts import open_hosts
from shoal.plan.container import plan_container
from shoal.plan.fabric import plan_fabric
from shoal.plan.fleet import COMPOSE, MODELS, PYZ, FleetPlan, PlannedFile, root_of
from shoal.plan.fleet_make import Given, Seen, plan_fleet
from shoal.plan.fleet_node import project
from shoal.render.compose import files
from shoal.spec import cluster, registry
from shoal.spec.cluster import FOUND_BY_PLAN, ClusterSpec, HostSpec
from shoal.state.standing import Standing

# What a plan is made of, and no more: each of these reads its group without the parts that cost.
NEEDS = ("rdma.devices", "net.netdevs", "gpu.gpus", "stack.nccl")
DEADLINE = 90.0  # seconds for each host; one that takes longer is named, and nothing is changed
LINKS = ("state", "cache", "run", "models", "encodings")
T = TypeVar("T")


@dataclass(frozen=True)
class Chair:
    """What all verbs need: the file, its hosts, how they stand, the plan, and the operator's own folder."""

    file: Path
    spec: ClusterSpec
    hosts: Mapping[str, SshHost]
    standings: Mapping[str, Standing]
    plan: FleetPlan
    desk: Desk


def open_file(file: Path) -> tuple[ClusterSpec, dict[str, SshHost]]:
    """The cluster in a file, and its hosts.

    Raises:
        ConfigError: it cannot be read, or it is a cluster of this machine alone.
    """
    spec = cluster.load(file)
    if spec.runtime == "local":
        raise ConfigError(f"{file}: runtime: local: its nodes are processes of this machine", fix="shoal up --local")
    return spec, open_hosts(spec)


def every(hosts: Sequence[Host], answers: Sequence[T | ShoalError]) -> dict[str, T]:
    """All answers by host; where a host has none, the error of all that have none."""
    lost = {host.name: answer for host, answer in zip(hosts, answers, strict=True) if isinstance(answer, ShoalError)}
    if not lost:
        return {
            host.name: answer for host, answer in zip(hosts, answers, strict=True) if not isinstance(answer, ShoalError)
        }
    raise together(lost, len(hosts))


def require_any(answers: Mapping[str, object]) -> None:
    """Raise the error of all hosts where none has another answer than that."""
    lost = {name: answer for name, answer in answers.items() if isinstance(answer, ShoalError)}
    if lost and len(lost) == len(answers):
        raise together(lost, len(lost))


def together(lost: Mapping[str, ShoalError], count: int) -> ShoalError:
    """One error of several hosts'."""
    first = next(iter(lost.values()))
    if len(lost) == 1:
        return first
    return type(first)(
        f"{len(lost)} of {count} hosts: {', '.join(lost)}",
        why="\n     ".join(f"{error.what}: {error.why}" for error in lost.values()),
        fix="\n     ".join(dict.fromkeys(error.fix for error in lost.values() if error.fix)),
    )


def look(spec: ClusterSpec, hosts: Sequence[Host]) -> tuple[Standing | ShoalError, ...]:
    """How the cluster stands on each host: its releases, and what runs."""
    step = {"do": "look", "project": project(spec.cluster)}

    def ask(host: Host) -> Standing:
        return Standing.model_validate(_done(spec, host, step)[0])

    return fanout(hosts, ask, deadline=DEADLINE)


def examine(spec: ClusterSpec, hosts: Sequence[Host]) -> dict[str, tuple[Standing, NodeFacts]]:
    """The same with what each host has for the runtime, and with its facts: all in one trip.

    Raises:
        ShoalError: a host could not be asked.
    """
    seen = {
        "do": "look",
        "runtime": spec.runtime,
        "project": project(spec.cluster),
        "image": spec.image,
        "python": spec.python if spec.runtime == "process" else "",
    }
    wanted = {"do": "read", "request": request(NEEDS).as_dict()}

    def ask(host: Host) -> tuple[Standing, NodeFacts]:
        standing, packed = _done(spec, host, seen, wanted)
        return Standing.model_validate(standing), node_facts(unpacked(host.name, packed))

    return every(hosts, fanout(hosts, ask, deadline=DEADLINE))


def _done(spec: ClusterSpec, host: Host, *steps: Step) -> list[Any]:
    return carry_out(host, root_of("~", spec.cluster), steps, timeout=DEADLINE - 15)


def prepare(file: Path, env: Mapping[str, str]) -> Chair:
    """Look at all hosts, and plan. Nothing is changed.

    Raises:
        ShoalError: a host could not be asked, or is not fit.
    """
    spec, hosts = open_file(file)
    found = examine(spec, tuple(hosts.values()))
    standings = {name: standing for name, (standing, _) in found.items()}
    facts = {host.name: _wanted(found[host.name][1], host, spec) for host in spec.hosts}
    version = version_of(tuple(facts.values()))[0] or LAST
    fabric = plan_fabric(tuple(facts.values()), version)
    seen = {
        host.name: Seen(standings[host.name], facts[host.name], part)
        for host, part in zip(spec.hosts, fabric.nodes, strict=True)
    }
    own = desk(spec.cluster, env)
    given = Given(str(file), _files(spec, seen))
    return Chair(file, spec, hosts, standings, plan_fleet(spec, seen, given), own)


def _wanted(facts: NodeFacts, host: HostSpec, spec: ClusterSpec) -> NodeFacts:
    """The facts with the environment that the node is going to have, not the login's."""
    env = dict(host.env)
    if host.fabric != FOUND_BY_PLAN:
        env["VLLM_HOST_IP"] = host.fabric
    if spec.fabric.kind == "tcp":
        env["NCCL_IB_DISABLE"] = "1"
    return replace(facts, name=host.name, env=env)


def _files(spec: ClusterSpec, seen: Mapping[str, Seen]) -> dict[str, tuple[PlannedFile, ...]]:
    """Each node's files, but for its ``.env``."""
    digest = hashlib.sha256(pyz.build()).hexdigest()
    program = PlannedFile(path=PYZ, mode=0o755, sha256=digest, why="shoal itself, as one file")
    own = _registry(spec)
    found = {}
    for host in spec.hosts:
        listed = [program]
        if spec.runtime == "compose":
            listed += _compose(host, seen[host.name])
        if host.role == "head" and own is not None:
            listed = [file for file in listed if file.path != MODELS]
            listed.append(PlannedFile(path=MODELS, mode=0o644, text=own, why="the model registry of the file"))
        found[host.name] = tuple(listed)
    return found


def _registry(spec: ClusterSpec) -> str | None:
    if not spec.model.registry:
        return None
    path = Path(spec.model.registry).expanduser()
    registry.load(path)  # its mistakes are told before anything is changed
    return path.read_text(encoding="utf-8")


def _compose(host: HostSpec, seen: Seen) -> list[PlannedFile]:
    texts = files(plan_container(host.role, seen.profile))
    listed = [PlannedFile(path=COMPOSE, mode=0o644, text=texts[COMPOSE], why=f"the containers, profile {seen.profile}")]
    if MODELS in texts:
        listed.append(PlannedFile(path=MODELS, mode=0o644, text=texts[MODELS], why="the model registry, empty"))
    why = "kept over releases"
    return listed + [PlannedFile(path=name, mode=0o777, link=f"../../{name}", why=why) for name in LINKS]
