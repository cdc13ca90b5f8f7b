"""The doctor's checks at the agent's start: what must be true of this node before its Ray joins."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from shoal.checks.base import Finding, Severity, Status
from shoal.checks.catalogue import CHECKS
from shoal.checks.run import RANK, Chosen, judged
from shoal.errors import ConfigError, PreconditionFailed
from shoal.facts.node import NodeFacts
from shoal.facts.read import node_facts
from shoal.host.base import Host
from shoal.host.gather import gather
from shoal.log import EventLog
from shoal.spec.nearest import did_you_mean

VARIABLE = "SHOAL_PREFLIGHT_IGNORE"
# The agent looks at its own ports and address itself, and waits for them; Docker is the host's.
ELSEWHERE = frozenset({"host.ports-free", "env.host-ip", "container.docker", "container.nvidia-runtime"})
CHOSEN = Chosen(
    tuple(
        check
        for check in CHECKS
        if RANK[check.severity] <= RANK[Severity.ERROR] and check.group != "runtime" and check.id not in ELSEWHERE
    ),
    (),
)


def demoted(value: str) -> frozenset[str]:
    """The ids in ``SHOAL_PREFLIGHT_IGNORE``.

    Raises:
        ConfigError: one of them is no check that runs here.
    """
    known = {check.id for check in CHOSEN.node}
    ids = frozenset(word.strip() for word in value.split(",") if word.strip())
    for name in sorted(ids - known):
        raise ConfigError(f"{VARIABLE}: no check {name!r} runs at the start; {did_you_mean(name, known)}")
    return ids


def look(host: Host, env: Mapping[str, str]) -> tuple[Finding, ...]:
    """This node, read and judged."""
    return judge(replace(node_facts(gather(host, CHOSEN.request())), env=env))


def judge(facts: NodeFacts) -> tuple[Finding, ...]:
    """What the chosen checks find."""
    return judged(CHOSEN.node, facts)


def tell(log: EventLog, findings: Iterable[Finding], ignored: frozenset[str]) -> None:
    """A line for each finding that is bad, one for the others; then stop for the first that is fatal.

    Raises:
        PreconditionFailed: a check fails whose severity is fatal, and it is not ignored.
    """
    findings = tuple(findings)
    bad = [item for item in findings if item.status is Status.FAIL]
    for item in bad:
        note = f" (not heeded: {VARIABLE})" if item.id in ignored else ""
        fix = f"; fix: {item.fix}" if item.fix else ""
        log("preflight", f"{item.id}{note}: {item.title}: no: {item.evidence}{fix}", level="warn")
    well = sum(item.status is Status.OK for item in findings)
    log(
        "preflight",
        f"{len(findings)} checks: {well} passed, {len(bad)} failed, the others do not apply or could not be told",
    )
    for item in bad:
        if item.severity is Severity.FATAL and item.id not in ignored:
            raise PreconditionFailed(f"{item.id}: {item.evidence}", why=f"must be true: {item.title}", fix=item.fix)
