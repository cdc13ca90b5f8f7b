"""``shoal down`` for a cluster on many hosts: stopped where it runs, and with ``--purge`` gone without a trace."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal.errors import ShoalError
from shoal.host.base import Host
from shoal.host.fanout import fanout
from shoal.host.send import carry_out
from shoal.host.ssh import SshHost
from shoal.ops.fleet import apply
from shoal.ops.fleet.desk import desk
from shoal.ops.fleet.hosts import open_host
from shoal.ops.fleet.lock import locked
from shoal.ops.fleet.planning import every, look, open_file
from shoal.ops.fleet.running import plan_of
from shoal.plan.fleet import FleetPlan, NodeDeployment, root_of
from shoal.spec.cluster import ClusterSpec
from shoal.state.standing import Standing

# In a container, since what a container has written belongs to root. Ray's folder goes where the agent's mark is on it.
AS_ROOT = "rm -rf /cluster/state /cluster/cache /cluster/run; [ ! -f /outside/ray/.shoal ] || rm -rf /outside/ray"


@dataclass(frozen=True)
class Reached:
    """The hosts that answered, and how they stand."""

    spec: ClusterSpec
    hosts: Mapping[str, Host]
    standings: Mapping[str, Standing]

    def root(self, name: str) -> str:
        """The cluster's folder on a host."""
        return root_of(self.standings[name].home, self.spec.cluster)

    def anything(self, *, purge: bool) -> bool:
        """Whether there is something to do: releases, or where all goes also what a push left that failed."""
        return any(one.releases or (purge and one.place == self.root(name)) for name, one in self.standings.items())

    @property
    def keeper(self) -> str:
        """The host that keeps the lock: the head, or the first that answered where that does not."""
        head = next(host.name for host in self.spec.hosts if host.role == "head")
        return head if head in self.standings else next(iter(self.standings))


def down(file: Path, env: Mapping[str, str], note: Callable[[str], None], *, purge: bool) -> list[str]:
    """Take the cluster down on every host that can be asked; what was done, in words.

    Raises:
        ShoalError: a host could not be asked; the others are down.
    """
    spec, hosts = open_file(file)
    there = tuple(hosts.values())
    note("looking at the hosts")
    answers = dict(zip(hosts, look(spec, there), strict=True))
    if gone := no_longer_named(spec, answers):
        note(f"looking at {', '.join(gone)}: no longer in the file, and this cluster's release is on it")
        answers |= dict(zip(gone, look(spec, tuple(gone.values())), strict=True))
        hosts |= gone
    standings = {name: answer for name, answer in answers.items() if isinstance(answer, Standing)}
    lost = {name: answer for name, answer in answers.items() if isinstance(answer, ShoalError)}
    reached = Reached(spec, hosts, standings)
    done = _on_all(reached, note, purge=purge) if reached.anything(purge=purge) else []
    if lost:
        error = next(iter(lost.values()))
        error.what = f"{', '.join(lost)} could not be asked, and may still run it: {error.what}"
        error.fix = f"{error.fix}\n     then again: shoal down -f {file}"
        raise error
    if purge:
        desk(spec.cluster, env).remove()
    return done


def no_longer_named(spec: ClusterSpec, answers: Mapping[str, Standing | ShoalError]) -> dict[str, SshHost]:
    """Hosts that the release on the head has, and the file has no more; the same machine by another name is none."""
    plan = plan_of(spec, answers)
    known = {host.ssh or host.name for host in spec.hosts} | {host.name for host in spec.hosts}
    nodes = plan.nodes if plan else ()
    return {node.name: open_host(node.name, node.ssh) for node in nodes if not {node.name, node.ssh} & known}


def _on_all(reached: Reached, note: Callable[[str], None], *, purge: bool) -> list[str]:
    with locked(reached.hosts[reached.keeper], reached.root(reached.keeper), "down") as lock:

        def stage(words: str) -> None:
            note(words)
            lock.keep()

        plan = plan_of(reached.spec, reached.standings)
        refuse_unread(reached, plan)
        names = [name for name in reached.standings if plan and plan.node(name)]
        done = take_down(plan, names, reached.hosts, stage) if plan else []
        return done + (_purge(reached, plan, stage) if purge else [])


def refuse_unread(reached: Reached, plan: FleetPlan | None) -> None:
    """Refuse where something runs, and the plan that it was started by cannot be read."""
    running = [name for name, one in reached.standings.items() if any(unit.digest for unit in one.units.values())]
    if plan is None and running:
        raise ShoalError(
            f"what runs on {', '.join(running)} was started by another version of shoal",
            why="the plan of its release cannot be read",
            fix="shoal up   # once with this version, then down again",
        )


def take_down(
    plan: FleetPlan, names: Sequence[str], hosts: Mapping[str, Host], note: Callable[[str], None]
) -> list[str]:
    """Stop everything of the plan on these hosts, and sweep what is left of it."""
    fleet = apply.Fleet(plan, hosts, note)
    units = [(node.name, str(unit.name)) for node in plan.nodes if node.name in names for unit in node.units]
    ended = apply.end(fleet, units)

    def sweep(node: NodeDeployment, host: Host) -> list[str]:
        steps: list[dict[str, Any]] = [{"do": "sweep", "folders": [node.temp] if node.temp else []}]
        steps += [{"do": "boot", "command": ""}] if node.boot else []
        return [f"{node.name}: {words}" for words in carry_out(host, node.root, steps)[0]]

    swept = fleet.on(list(names), sweep)
    return [f"stopped {unit} of {name}" for name, unit in ended] + [words for told in swept.values() for words in told]


def _purge(reached: Reached, plan: FleetPlan | None, note: Callable[[str], None]) -> list[str]:
    note("removing all that was put there")
    there = [reached.hosts[name] for name in reached.standings]

    def work(host: Host) -> str:
        root = reached.root(host.name)
        if plan is not None and plan.runtime == "compose":
            binds = ("-v", f"{root}:/cluster", "-v", "/tmp:/outside")  # noqa: S108 (Ray's own folder is in it)
            words = ("docker", "run", "--rm", "--network", "none", *binds, "--entrypoint", "sh", plan.image)
            host.run((*words, "-c", AS_ROOT), timeout=120)
        return f"removed {root} on {host.name}" if carry_out(host, root, [{"do": "purge"}])[0] else ""

    return [words for words in every(there, fanout(there, work, deadline=240)).values() if words]
