"""``shoal init``: machines looked at, and written down as a cluster."""

from collections.abc import Callable, Sequence
from pathlib import Path

from shoal.checks.run import read
from shoal.errors import ConfigError, ShoalError, UsageError
from shoal.facts.read import node_facts
from shoal.facts.sources import request
from shoal.host.base import Host
from shoal.host.local import LocalHost
from shoal.nccl.variables import LAST
from shoal.plan.draft import draft
from shoal.plan.fabric import plan_fabric
from shoal.render.cluster_file import cluster_file
from shoal.spec import cluster

NEEDS = ("rdma", "net", "gpu", "machine", "stack")


def look(name: str, hosts: Sequence[Host], out: Path, tell: Callable[[ShoalError], None]) -> str:
    """The text of a cluster file for these hosts. Nothing is written.

    Args:
        name: the cluster's.
        out: the file that is meant, for messages.
        tell: told of each host that could not be asked.

    Raises:
        ShoalError: a host could not be asked, or what they say makes no cluster.
    """
    gathered = read(hosts, request(NEEDS))
    for error in gathered.unreachable.values():
        tell(error)
    if gathered.unreachable:
        lost = ", ".join(gathered.unreachable)
        raise type(next(iter(gathered.unreachable.values())))(
            f"{len(gathered.unreachable)} of {len(hosts)} host(s) could not be asked: {lost}",
            why="a cluster file without them would not be the one you mean",
            fix="mend what is said above, or leave them out",
        )
    nodes = [node_facts(taken) for taken in gathered.snapshots]
    text = cluster_file(draft(name, [host.name for host in hosts], nodes, plan_fabric(nodes, LAST)))
    try:
        cluster.parse(text, str(out))
    except ConfigError as error:
        error.fix = "mend the hosts, or write what shoal init --dry-run shows and correct it by hand"
        raise
    return text


def write(out: Path, text: str) -> None:
    """Write the file where there is none yet.

    Raises:
        UsageError: there is one.
        HostError: it cannot be written.
    """
    if out.exists():
        raise UsageError(f"{out} is there already", fix=f"mv {out} {out}.old; or name another with -o")
    LocalHost().write(str(out), text)
