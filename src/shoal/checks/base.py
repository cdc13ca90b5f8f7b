"""Checks as data: a positive title, a pure judgement over facts, a finding with evidence and fix."""

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


@dataclass(frozen=True)
class Finding:
    """One judgement: what was found, on what evidence, and the command that mends it."""

    id: str
    title: str
    status: Status
    evidence: str = ""
    fix: str = ""


Verdict = tuple[Status, str, str]


@dataclass(frozen=True)
class Check(Generic[Facts]):
    """One check: a stable id, a title that reads true when it is ticked, and the judgement."""

    id: str
    title: str
    judge: Callable[[Facts], Verdict]

    def run(self, facts: Facts) -> Finding:
        """The finding on these facts."""
        status, evidence, fix = self.judge(facts)
        return Finding(self.id, self.title, status, evidence, fix)


def run_checks(checks: Iterable[Check[Facts]], facts: Facts) -> tuple[Finding, ...]:
    """All findings, in the checks' order."""
    return tuple(check.run(facts) for check in checks)


def ok(evidence: str = "") -> Verdict:
    """It is as it should be."""
    return Status.OK, evidence, ""


def fail(evidence: str, fix: str) -> Verdict:
    """It is not, and this mends it."""
    return Status.FAIL, evidence, fix


def unknown(evidence: str) -> Verdict:
    """It could not be told."""
    return Status.UNKNOWN, evidence, ""
