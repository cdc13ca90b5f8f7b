"""Example facts for checks: each names what the check must answer; whole answers lie in a golden file."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shoal.checks.base import Check, Severity, Status
from shoal.facts.node import NodeFacts

OK, WARN, FAIL, SKIP, UNKNOWN = Status.OK, Status.WARN, Status.FAIL, Status.SKIP, Status.UNKNOWN


@dataclass(frozen=True)
class Example:
    """Facts, and the status that a check must give on them."""

    id: str
    status: Status
    facts: NodeFacts


def node(**parts: Any) -> NodeFacts:
    """A node called gx1 with these parts."""
    return NodeFacts("gx1", **parts)


def changed(facts: NodeFacts, **parts: Mapping[str, Any]) -> NodeFacts:
    """The node with fields of its parts replaced: ``changed(node, gpu={"driver": "1"})``."""
    return replace(facts, **{name: replace(getattr(facts, name), **fields) for name, fields in parts.items()})


def examples(table: Mapping[str, Mapping[Status, NodeFacts | Sequence[NodeFacts]]]) -> list[Example]:
    """One example for each facts value of the table."""
    out = []
    for id_, statuses in table.items():
        for status, facts in statuses.items():
            each = [facts] if isinstance(facts, NodeFacts) else facts
            out += [Example(id_, status, one) for one in each]
    return out


def names(cases: Iterable[Example]) -> list[str]:
    """Test names, in the cases' order."""
    counts: dict[str, itertools.count[int]] = {}
    keys = [f"{case.id}-{case.status}" for case in cases]
    return [f"{key}-{next(counts.setdefault(key, itertools.count(1)))}" for key in keys]


def answers(checks: Iterable[Check[NodeFacts]], cases: Sequence[Example]) -> dict[str, list[str]]:
    """What each check says on each example."""
    by_id = {check.id: check for check in checks}
    return {name: list(by_id[case.id].judge(case.facts)) for name, case in zip(names(cases), cases, strict=True)}


def bad(check: Check[NodeFacts]) -> Status:
    """The status that this check gives where it is not content."""
    return FAIL if check.severity in {Severity.FATAL, Severity.ERROR} else WARN


def gaps(checks: Iterable[Check[NodeFacts]], cases: Sequence[Example]) -> list[str]:
    """Checks without an example where they pass or one where they do not; what informs only needs to pass."""
    seen = {(case.id, case.status) for case in cases}
    wanted = [(check.id, status) for check in checks for status in (OK, bad(check)) if _can(check, status)]
    return [f"{id_}: no example of {status}" for id_, status in wanted if (id_, status) not in seen]


def _can(check: Check[NodeFacts], status: Status) -> bool:
    return status is OK or check.severity is not Severity.INFO
