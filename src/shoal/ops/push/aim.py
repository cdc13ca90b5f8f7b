"""Where things lie on the hosts of a cluster file, and by which address they reach each other."""

from collections.abc import Mapping

from shoal.checks.run import read
from shoal.errors import PreconditionFailed
from shoal.facts.read import node_facts
from shoal.facts.sources import request
from shoal.host.base import Host
from shoal.nccl.variables import LAST
from shoal.ops.init import NEEDS
from shoal.plan.draft import draft
from shoal.plan.fabric import plan_fabric
from shoal.spec.cluster import FOUND_BY_PLAN, ClusterSpec


def folder(spec: ClusterSpec, name: str) -> str:
    """A folder of the cluster on each host; ``~`` is the login's home there."""
    return f"~/.local/share/shoal/{spec.cluster}/{name}"


def models(spec: ClusterSpec) -> str:
    """Where each host keeps models: the containers' /models."""
    return spec.model_cache or folder(spec, "models")


def addresses(spec: ClusterSpec, hosts: Mapping[str, Host]) -> dict[str, str]:
    """Each host's address on the fabric; those that are to be found are looked for on the hosts. One alone needs none.

    Raises:
        HostError: a host could not be asked.
        PreconditionFailed: no address was found.
    """
    if len(hosts) == 1:
        return {}
    known = {host.name: host.fabric for host in spec.hosts if host.name in hosts}
    if FOUND_BY_PLAN not in known.values():
        return known
    gathered = read(tuple(hosts.values()), request(NEEDS))
    for error in gathered.unreachable.values():
        raise error
    nodes = [node_facts(taken) for taken in gathered.snapshots]
    found = draft(spec.cluster, list(hosts), nodes, plan_fabric(nodes, LAST))
    for name, one in zip(hosts, found.hosts, strict=True):
        if known[name] == FOUND_BY_PLAN:
            known[name] = one.fabric.text
    if lost := [name for name, address in known.items() if address == FOUND_BY_PLAN]:
        raise PreconditionFailed(
            f"no fabric address was found of {', '.join(lost)}",
            why="no address that the other hosts reach; shoal fabric says more",
            fix="write `fabric: ADDRESS` for each host in the cluster file",
        )
    return known
