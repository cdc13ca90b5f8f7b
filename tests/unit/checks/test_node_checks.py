"""Each check of a node passes where it should, and says what is wrong, what is missing and what does not apply."""

from typing import Any

import pytest
from tests.conftest import Golden
from tests.unit.checks import gpu_examples, rdma_examples, roce_examples
from tests.unit.checks.examples import answers, bad, gaps

from shoal.checks import (
    gpu,
    gpu_health,
    gpu_links,
    rdma,
    rdma_counters,
    rdma_hardware,
    rdma_ports,
    roce,
    roce_net,
    roce_quality,
    stacks,
)
from shoal.checks.base import Check, Severity, Status
from shoal.facts.node import NodeFacts

MODULES = (
    gpu,
    gpu_health,
    gpu_links,
    rdma,
    rdma_ports,
    rdma_hardware,
    rdma_counters,
    roce,
    roce_net,
    roce_quality,
    stacks,
)
CHECKS: tuple[Check[NodeFacts], ...] = tuple(check for module in MODULES for check in module.CHECKS)
EXAMPLES = [*gpu_examples.EXAMPLES, *rdma_examples.EXAMPLES, *roce_examples.EXAMPLES]
BY_ID = {check.id: check for check in CHECKS}


class Seen:
    """Facts that note which of their parts were looked at."""

    def __init__(self, facts: NodeFacts) -> None:
        self.facts, self.parts = facts, set[str]()

    def __getattr__(self, name: str) -> Any:
        self.parts.add(name)
        return getattr(self.facts, name)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_a_check_judges_its_examples_as_stated(check: Check[NodeFacts]) -> None:
    """The status of each example, with evidence or a reason, and a fix where something is to be mended."""
    told = [(case, check.judge(case.facts)) for case in EXAMPLES if case.id == check.id]
    found = [(status, bool(evidence), bool(fix)) for _, (status, evidence, fix) in told]
    assert found == [(case.status, True, case.status in {Status.FAIL, Status.WARN}) for case, _ in told]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_a_check_names_what_it_needs(check: Check[NodeFacts]) -> None:
    """A check looks at no part of the facts that it does not name in its needs."""
    seen = [Seen(case.facts) for case in EXAMPLES if case.id == check.id]
    for facts in seen:
        check.judge(facts)  # type: ignore[arg-type]
    assert {part for facts in seen for part in facts.parts} - {"name"} <= set(check.needs)


def test_what_checks_say_is_what_was_reviewed(golden: Golden) -> None:
    """Evidence and fix of every example, whole."""
    golden("checks/node.json", answers(CHECKS, EXAMPLES))


def test_every_check_has_an_example_where_it_passes_and_one_where_it_does_not() -> None:
    """No check goes untried."""
    assert gaps(CHECKS, EXAMPLES) == []


def test_a_check_fails_as_its_severity_says() -> None:
    """FATAL and ERROR give FAIL, WARNING gives WARN, INFO neither."""
    wrong = {Status.FAIL, Status.WARN}
    odd = [
        (case.id, case.status)
        for case in EXAMPLES
        if case.status in wrong - {bad(BY_ID[case.id])}
        or (case.status in wrong and BY_ID[case.id].severity is Severity.INFO)
    ]
    assert odd == []


def test_ids_are_unique_and_of_a_group() -> None:
    """Two checks never share an id."""
    ids = [check.id for check in CHECKS]
    assert len(set(ids)) == len(ids)
    assert {check.group for check in CHECKS} <= {"gpu", "rdma", "roce"}


def test_titles_read_true_when_ticked_and_each_check_says_why_it_matters() -> None:
    """No title says "not", and no docstring is shorter than a sentence."""
    assert [check.id for check in CHECKS if " not " in f" {check.title} " or len(check.about) < 60] == []
