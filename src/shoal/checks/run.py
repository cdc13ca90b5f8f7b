"""The doctor: choose checks, read what they need, judge."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TypeVar

from shoal.checks import pings
from shoal.checks.base import Check, Finding, Severity, Status
from shoal.checks.catalogue import CHECKS, EVERY, FLEET_CHECKS
from shoal.errors import HostUnreachable, ShoalError, UsageError
from shoal.facts import sources
from shoal.facts.node import Fleet, NodeFacts, Ping
from shoal.facts.read import node_facts
from shoal.host.base import Host
from shoal.host.fanout import fanout
from shoal.host.gather import Request, gather, late
from shoal.host.snapshot import Snapshot
from shoal.spec.nearest import did_you_mean

Facts = TypeVar("Facts")
RANK = {severity: place for place, severity in enumerate(Severity)}
DEADLINE = 20.0  # seconds for what is read on one host
WAY = 25.0  # seconds more for the way there and back


@dataclass(frozen=True)
class Choice:
    """Which checks: ids or groups that are wanted (all, where none is named) or not, and the least severity."""

    only: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    severity: Severity = Severity.INFO

    def takes(self, check: Check[Facts]) -> bool:
        """Whether that check is chosen."""
        names = {check.id, check.group}
        wanted = not self.only or bool(names & set(self.only))
        return wanted and not names & set(self.ignore) and RANK[check.severity] <= RANK[self.severity]


@dataclass(frozen=True)
class Chosen:
    """The checks that were chosen, and what they need to know."""

    node: tuple[Check[NodeFacts], ...]
    fleet: tuple[Check[Fleet], ...]

    def request(self, *, models: tuple[str, ...] = ()) -> Request:
        """What is read for them, each thing once."""
        needs = [check.needs for check in self.node] + [check.needs for check in self.fleet]
        return sources.request(sorted(set(chain.from_iterable(needs))), models=models, deadline=DEADLINE)


@dataclass(frozen=True)
class Gathered:
    """What was read: snapshots in the hosts' order, and why the other hosts could not be asked."""

    snapshots: tuple[Snapshot, ...] = ()
    unreachable: dict[str, ShoalError] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What the doctor says. ``late`` names what did not end in time, by node."""

    nodes: tuple[str, ...]
    findings: tuple[Finding, ...]
    unreachable: dict[str, ShoalError] = field(default_factory=dict)
    late: dict[str, tuple[str, ...]] = field(default_factory=dict)
    facts: Mapping[str, NodeFacts] = field(default_factory=dict, repr=False, compare=False)

    def count(self, status: Status) -> int:
        """How many findings have this status."""
        return sum(finding.status is status for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """3 where a host could not be asked, for then the report is not whole; else 1 where something fails, else 0."""
        if self.unreachable:
            return HostUnreachable.exit_code
        return 1 if self.count(Status.FAIL) else 0


def choose(choice: Choice) -> Chosen:
    """The checks of that choice.

    Raises:
        UsageError: a name is neither a check's nor a group's, or nothing is left.
    """
    names = {check.id for check in EVERY} | {check.group for check in EVERY}
    for name in (*choice.only, *choice.ignore):
        if name not in names:
            raise UsageError(f'no check or group "{name}"; {did_you_mean(name, names)}', fix="shoal checks list")
    chosen = Chosen(tuple(filter(choice.takes, CHECKS)), tuple(filter(choice.takes, FLEET_CHECKS)))
    if not chosen.node and not chosen.fleet:
        raise UsageError("no check is left to run", why="what --only names, --ignore or --severity takes away")
    return chosen


def read(hosts: Sequence[Host], request: Request) -> Gathered:
    """All hosts at once, each in one trip; one that cannot be asked does not keep the others."""
    told = fanout(hosts, lambda host: gather(host, request), deadline=request.deadline + WAY)
    return Gathered(
        tuple(answer for answer in told if isinstance(answer, Snapshot)),
        {host.name: answer for host, answer in zip(hosts, told, strict=True) if isinstance(answer, ShoalError)},
    )


def judge(
    chosen: Chosen,
    gathered: Gathered,
    *,
    hosts: Sequence[Host] = (),
    before: Mapping[str, NodeFacts] | None = None,
) -> Report:
    """Every node by the checks of a node, and all of them together by the others where there is more than one.

    ``hosts`` are those that may be asked to ping each other, ``before`` is what the nodes were at an earlier look.
    """
    nodes = tuple(_with(node_facts(taken), before or {}) for taken in gathered.snapshots)
    unreachable = {name: error.what for name, error in gathered.unreachable.items()}
    findings = [finding for facts in nodes for finding in judged(chosen.node, facts, facts.name)]
    if len(nodes) + len(unreachable) > 1:
        fleet = Fleet(nodes, None, unreachable)
        findings += judged(chosen.fleet, replace(fleet, pings=_ping(hosts, fleet)) if chosen.fleet else fleet)
    hung = {taken.name: late(taken) for taken in gathered.snapshots}
    return Report(
        tuple(facts.name for facts in nodes),
        tuple(findings),
        gathered.unreachable,
        {name: words for name, words in hung.items() if words},
        {facts.name: facts for facts in nodes},
    )


def _with(facts: NodeFacts, before: Mapping[str, NodeFacts]) -> NodeFacts:
    earlier = before.get(facts.name)
    return replace(facts, before=replace(earlier, before=None)) if earlier else facts


def _ping(hosts: Sequence[Host], fleet: Fleet) -> tuple[Ping, ...] | None:
    """A second trip: each host pings its peers on every rail; None where nobody could."""
    wanted = pings.ways(fleet)
    senders = [host for host in hosts if any(way.source.node.name == host.name for way in wanted)]
    if not wanted:
        return () if hosts else None
    told = fanout(senders, lambda host: gather(host, pings.request(host.name, wanted)), deadline=DEADLINE + WAY)
    return pings.answers(wanted, {one.name: one for one in told if isinstance(one, Snapshot)}) or None


def judged(checks: Iterable[Check[Facts]], facts: Facts, node: str = "") -> tuple[Finding, ...]:
    """All findings on these facts. A check that breaks says so, and the others are heard."""
    return tuple(_one(check, facts, node) for check in checks)


def _one(check: Check[Facts], facts: Facts, node: str) -> Finding:
    try:
        return check.run(facts, node)
    except Exception as error:  # noqa: BLE001  a mistake in one check must not hide what the others found
        said = f"the check itself broke, which is a mistake in shoal: {type(error).__name__}: {error}"
        return Finding(check.id, check.title, Status.UNKNOWN, said, "", check.severity, node)
