"""What is asked of, or ordered to, a cluster of a file while it runs: a question, restart, events, proof, autopsy."""

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shoal.bench.proof import Proof
from shoal.engine.client import Answer
from shoal.errors import HostError, NotRunning, ShoalError
from shoal.host.base import Host
from shoal.host.fanout import fanout
from shoal.ops.fleet import reach
from shoal.ops.fleet.planning import every, look, open_file, require_any
from shoal.ops.logs import Troubles
from shoal.ops.prove import Wish
from shoal.plan.fleet import FleetPlan, NodeDeployment
from shoal.plan.fleet_changes import former
from shoal.spec.cluster import ClusterSpec
from shoal.state import journal
from shoal.state.journal import Entry
from shoal.state.standing import Standing
from shoal.state.status import EngineStatus

Standings = Mapping[str, Standing | ShoalError]
DEADLINE = 60.0
NAMED = re.compile(r"\bshoal (ask|status|logs|events|restart|prove|autopsy|up|down)\b(?: --local\b)?(?! -f\b)")
WRONG_KEY = "the key of this cluster is missing or wrong"


@dataclass(frozen=True)
class Far:
    """A cluster's file, its hosts, and the plan that is on them."""

    file: Path
    hosts: Mapping[str, Host]
    plan: FleetPlan

    @property
    def head(self) -> Host:
        """The host of the plan's head."""
        return self.hosts[self.plan.head.name]

    def status(self) -> EngineStatus:
        """The engine, as its supervisor says."""
        return reach.engine(self.head, self.plan)

    def order(self, how: str) -> None:
        """Order a restart."""
        reach.restart(self.head, self.plan, how)

    def ask(self, question: str, max_tokens: int, temperature: float) -> Answer:
        """The model's answer, whole."""
        return reach.ask(self.head, self.plan, question, max_tokens, temperature)

    def prove(self, wish: Wish) -> tuple[Proof, list[str]]:
        """The verdict on the traffic, and what was said on the way to it."""
        return reach.prove(self.head, self.plan, wish)


@contextmanager
def of_file(file: Path) -> Iterator[None]:
    """Let the commands that an error names be those for a cluster of a file."""
    try:
        yield
    except ShoalError as error:
        name = shlex.quote(str(file))
        if WRONG_KEY in error.why:
            error.fix = f"shoal up -f {name}   # hands the keys over again"
        error.fix = NAMED.sub(rf"shoal \1 -f {name}", error.fix)
        raise


def by_head(file: Path) -> Far:
    """The cluster, whose head is up.

    Raises:
        HostError: the head cannot be asked.
        NotRunning: it has no release, or its agent does not run.
    """
    spec, hosts = open_file(file)
    head = hosts[next(host.name for host in spec.hosts if host.role == "head")]
    standing = every((head,), look(spec, (head,)))[head.name]
    plan = former(standing)
    if plan is None:
        raise NotRunning(f"{head.name} has no release of {spec.cluster}", fix=f"shoal up -f {file}")
    if plan.head.name != head.name:
        what = f"{plan.head.name} is the head of what runs, and not {head.name}"
        raise NotRunning(what, fix=f"shoal up -f {file}   # lets {head.name} be the head")
    if not standing.unit("agent").runs:
        raise NotRunning(f"{spec.cluster} is down: no agent runs on {head.name}", fix=f"shoal up -f {file}")
    return Far(file, hosts, plan)


def standings_of(spec: ClusterSpec, hosts: Mapping[str, Host]) -> Standings:
    """How each host stands, or why it cannot be asked.

    Raises:
        HostError: none can be asked.
    """
    found = dict(zip(hosts, look(spec, tuple(hosts.values())), strict=True))
    require_any(found)
    return found


def plan_of(spec: ClusterSpec, standings: Standings) -> FleetPlan | None:
    """The plan that is on the head, else on another host; None where no release is anywhere."""
    heads_first = sorted(spec.hosts, key=lambda host: host.role != "head")
    plans = (former(one) for host in heads_first if isinstance(one := standings.get(host.name), Standing))
    return next((plan for plan in plans if plan), None)


def able(plan: FleetPlan, standings: Standings) -> Iterator[NodeDeployment]:
    """The nodes that can ask the others, the head first: those whose agent runs."""
    for node in (plan.head, *plan.workers):
        standing = standings.get(node.name)
        if isinstance(standing, Standing) and standing.unit("agent").runs:
            yield node


def autopsy(file: Path) -> str:
    """Where every rank stands: the page of the head, else of the next node that can ask the others.

    Raises:
        HostError: no host can be asked.
        NotRunning: the cluster is down.
    """
    spec, hosts = open_file(file)
    standings = standings_of(spec, hosts)
    plan = plan_of(spec, standings)
    error: ShoalError = NotRunning(f"{spec.cluster} is down: no agent runs", fix=f"shoal up -f {file}")
    if plan is None:
        raise error
    for node in able(plan, standings):
        try:
            return reach.autopsy(hosts[node.name], plan, node)
        except HostError as met:
            error = met
    raise error


def events(file: Path, note: Callable[[str], None]) -> Callable[[float], list[Entry]]:
    """A reader of all nodes' journals since a moment. A host that cannot be read is noted, and asked again.

    Raises:
        HostError: no host can be asked.
        NotRunning: no release is on any.
    """
    spec, hosts = open_file(file)
    standings, troubles = standings_of(spec, hosts), Troubles(note)
    plan = plan_of(spec, standings)
    if plan is None:
        raise NotRunning(f"no host has a release of {spec.cluster}", fix=f"shoal up -f {file}")
    nodes = {node.name: node for node in plan.nodes if node.name in hosts}
    asked = [hosts[name] for name in nodes]

    def read(since: float) -> list[Entry]:
        told = fanout(asked, lambda host: reach.events(host, plan, nodes[host.name], since), deadline=DEADLINE)
        answers = dict(zip(nodes, told, strict=True))
        for name, answer in answers.items():
            troubles.heard(name, answer if isinstance(answer, ShoalError) else None)
        require_any(answers)
        return journal.merge(answer for answer in told if not isinstance(answer, ShoalError))

    return read
