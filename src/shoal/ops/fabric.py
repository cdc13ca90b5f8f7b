"""``shoal fabric``: machines or captures in, the plan for their fabric out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from shoal.checks.run import read
from shoal.errors import ShoalError, UsageError
from shoal.facts.node import NodeFacts
from shoal.facts.read import node_facts
from shoal.facts.sources import request
from shoal.host.base import Host
from shoal.nccl.variables import LAST, Version, dotted, parse_version
from shoal.ops.doctor import loaded
from shoal.plan.fabric import Fabric, plan_fabric
from shoal.spec import dotenv

NEEDS = ("rdma", "net", "gpu", "stack", "env", "machine")
FIRST: Version = (2, 10)  # the oldest NCCL whose rules were read


@dataclass(frozen=True)
class Answer:
    """The plan, where the version of NCCL is from, and the hosts that could not be asked."""

    fabric: Fabric
    source: str
    unreachable: Mapping[str, ShoalError]


def fabric(
    hosts: Sequence[Host], captures: Sequence[Path], *, nccl: Version | None = None, env_file: Path | None = None
) -> Answer:
    """The plan for these hosts and captures together.

    Raises:
        ConfigError: a capture or the environment file cannot be read.
        HostError: no host could be asked, and there is no capture.
    """
    values = dotenv.parse(dotenv.read(env_file)[0]).values if env_file else {}
    kept = loaded(captures)
    told = read(hosts, request(NEEDS))
    if told.unreachable and not told.snapshots and not kept:
        raise next(iter(told.unreachable.values()))
    nodes = [node_facts(taken) for taken in (*told.snapshots, *kept)]
    nodes = [replace(node, env={**(node.env or {}), **values}) for node in nodes]
    version, source = (nccl, "--nccl") if nccl else version_of(nodes)
    return Answer(plan_fabric(nodes, version), source, told.unreachable)


def version_of(nodes: Sequence[NodeFacts]) -> tuple[Version, str]:
    """The NCCL that the nodes have, and in words where that is from: the oldest of them, else the newest known."""
    found = {node.name: parse_version(node.stack.nccl) for node in nodes if node.stack.nccl}
    known = {name: version for name, version in found.items() if version is not None and version >= FIRST}
    if not known:
        return LAST, "the newest that is known: no node says which NCCL it has; --nccl VERSION tells"
    lowest = min(known.values())
    if len(set(known.values())) == 1:
        return lowest, "found on " + (f"all {len(nodes)} nodes" if len(known) == len(nodes) > 1 else ", ".join(known))
    each = ", ".join(f"{name} has {dotted(version)}" for name, version in known.items())
    return lowest, f"the oldest: {each}; NCCL must be the same everywhere"


def parse_nccl(text: str) -> Version:
    """A version that somebody wrote.

    Raises:
        UsageError: it is none.
    """
    version = parse_version(text)
    if version is None or version < FIRST or version[0] != FIRST[0]:
        raise UsageError(
            f"--nccl {text}: expected a version of NCCL, {dotted(FIRST)} or newer, such as 2.27.3",
            fix="python3 -c 'import torch; print(torch.cuda.nccl.version())'   # says which one is there",
        )
    return version
