"""Checks as data: a positive title, a pure judgement over facts, a finding with evidence and fix."""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

Facts = TypeVar("Facts")


class Status(StrEnum):
    """What a check found. UNKNOWN means that it could not be told: that is never "broken"."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"
    SKIP = "SKIP"
    UNKNOWN = "UNKNOWN"


class Severity(StrEnum):
    """What a failure of the check means: FATAL stops a launch."""

    FATAL = "fatal"
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Scope(StrEnum):
    """What the check looks at."""

    NODE = "node"
    CONTAINER = "container"
    ENVIRONMENT = "environment"
    CROSS_NODE = "cross-node"
    RUNTIME = "runtime"


@dataclass(frozen=True)
class Finding:
    """One judgement: what was found, on what evidence, the command that mends it; ``node`` is empty for all nodes."""

    id: str
    title: str
    status: Status
    evidence: str = ""
    fix: str = ""
    severity: Severity = Severity.ERROR
    node: str = ""


Verdict = tuple[Status, str, str]


@dataclass(frozen=True)
class Check(Generic[Facts]):
    """One check: a stable id, a title that reads true when it is ticked, and the judgement.

    ``needs`` names the fields of the facts that it reads; ``about`` says why it matters, for the reference.
    """

    id: str
    title: str
    judge: Callable[[Facts], Verdict]
    severity: Severity = Severity.ERROR
    scope: Scope = Scope.NODE
    needs: tuple[str, ...] = ()
    about: str = ""

    @property
    def group(self) -> str:
        """The part of the id before the dot."""
        return self.id.partition(".")[0]

    def run(self, facts: Facts, node: str = "") -> Finding:
        """The finding on these facts."""
        status, evidence, fix = self.judge(facts)
        return Finding(self.id, self.title, status, evidence, fix, self.severity, node)


def check(
    id: str,  # noqa: A002 (the word that every reader looks for)
    title: str,
    *,
    severity: Severity = Severity.ERROR,
    scope: Scope = Scope.NODE,
    needs: tuple[str, ...] = (),
) -> Callable[[Callable[[Facts], Verdict]], Check[Facts]]:
    """Make a check of a judgement; its docstring says why it matters."""

    def made(judge: Callable[[Facts], Verdict]) -> Check[Facts]:
        return Check(id, title, judge, severity, scope, needs, inspect.cleandoc(judge.__doc__ or ""))

    return made


def run_checks(checks: Iterable[Check[Facts]], facts: Facts) -> tuple[Finding, ...]:
    """All findings, in the checks' order."""
    return tuple(check.run(facts) for check in checks)


def ok(evidence: str = "") -> Verdict:
    """It is as it should be."""
    return Status.OK, evidence, ""


def fail(evidence: str, fix: str) -> Verdict:
    """It is not, and this mends it."""
    return Status.FAIL, evidence, fix


def warn(evidence: str, fix: str) -> Verdict:
    """It works, and will not for long or not well; this mends it."""
    return Status.WARN, evidence, fix


def skip(reason: str) -> Verdict:
    """It does not apply to this machine."""
    return Status.SKIP, reason, ""


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Several judgements of one kind as one: the worst status with the evidence of all that have it, SKIP for none."""
    judged = list(verdicts)
    for status in (Status.FAIL, Status.WARN, Status.UNKNOWN, Status.OK, Status.SKIP):
        found = [verdict for verdict in judged if verdict[0] is status]
        if found:
            evidence, fixes = (
                dict.fromkeys(item[1] for item in found if item[1]),
                [item[2] for item in found if item[2]],
            )
            return status, "; ".join(evidence), "; ".join(dict.fromkeys(fixes))
    return skip("nothing to look at")


def unknown(evidence: str) -> Verdict:
    """It could not be told."""
    return Status.UNKNOWN, evidence, ""
