"""How the doctor's report is shown: lines for people, documents for programs."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from textwrap import wrap
from typing import Any
from xml.etree import ElementTree as ET

from click import style

from shoal.checks.base import Check, Finding, Status
from shoal.checks.run import RANK, Report

COLOUR = {Status.FAIL: "red", Status.WARN: "yellow", Status.UNKNOWN: "magenta"}
ORDER = (Status.FAIL, Status.WARN, Status.UNKNOWN, Status.SKIP, Status.OK)
SHOWN = (Status.FAIL, Status.WARN, Status.UNKNOWN)
PAGE = "docs/reference/checks.md"
ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # in XML 1.0
CONTROL = re.compile(r"[^\S\n\t ]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
INDENT = 9
MOST_NAMES = 4


def printable(text: str) -> str:
    """Text that a terminal only shows: what a machine says may hold control sequences."""
    return CONTROL.sub("\ufffd", text)


def link(check_id: str) -> str:
    """Where the reference speaks of a check."""
    return f"{PAGE}#{check_id}"


def group(finding: Finding) -> str:
    """The part of the id before the dot."""
    return finding.id.partition(".")[0]


def document(report: Report) -> dict[str, Any]:
    """The report as plain values."""
    return {
        "schema_version": 1,
        "exit_code": report.exit_code,
        "nodes": list(report.nodes),
        "unreachable": {
            name: {"what": error.what, "why": error.why, "fix": error.fix} for name, error in report.unreachable.items()
        },
        "late": {name: list(words) for name, words in report.late.items()},
        "counts": {status.value: report.count(status) for status in ORDER},
        "findings": [
            asdict(finding) | {"group": group(finding), "link": link(finding.id)} for finding in report.findings
        ],
    }


def worst_first(report: Report) -> list[Finding]:
    """Findings by status, then by severity; those of one kind stay in the catalogue's order."""
    return sorted(report.findings, key=lambda item: (ORDER.index(item.status), RANK[item.severity]))


def page(report: Report, width: int) -> Iterator[str]:
    """Failures first, each with evidence and fix; what is well is counted by group. Coloured, for who wants it."""
    for finding, nodes in alike(report):
        if finding.status in SHOWN:
            yield from _finding(finding, nodes if len(report.nodes) > 1 else "", width)
    yield from _trouble(report)
    yield from (style(line, dim=True) for line in counted(report))
    yield style(summary(report), bold=True)


def alike(report: Report) -> Iterator[tuple[Finding, str]]:
    """Findings, the worst first, and the nodes on which they are the same in every word."""
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for item in worst_first(report):
        groups.setdefault((item.id, item.status, item.evidence, item.fix), []).append(item)
    for first, *others in groups.values():
        names = [item.node for item in (first, *others)]
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        yield first, printable(", ".join(names[:MOST_NAMES]) + more)


def _finding(finding: Finding, nodes: str, width: int) -> Iterator[str]:
    where = f"{nodes}  " if nodes else ""
    status = style(f"{finding.status.value:<{INDENT}}", fg=COLOUR[finding.status], bold=finding.status is Status.FAIL)
    yield f"{status}{where}{style(finding.id, bold=True)}  {finding.title}"
    yield from (" " * INDENT + line for line in _wrapped(printable(finding.evidence), max(width - INDENT, 20)))
    if finding.fix:
        # One line, however long: it is copied.
        yield _about("fix", printable(finding.fix))


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of that width; names and paths stay whole."""
    return wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _about(word: str, text: str) -> str:
    return " " * INDENT + style(f"{word}: ", fg="cyan") + text


def _trouble(report: Report) -> Iterator[str]:
    """Hosts that could not be asked, and what did not end in time."""
    for name, error in report.unreachable.items():
        yield (
            style(f"{'NO WAY':<{INDENT}}", fg="red", bold=True) + style(name, bold=True) + f"  {printable(error.what)}"
        )
        yield from (_about(word, printable(text)) for word, text in (("why", error.why), ("fix", error.fix)) if text)
    for name, words in report.late.items():
        yield from (style(f"{'LATE':<{INDENT}}", fg="yellow") + printable(f"{name}  {text}") for text in words)


def counted(report: Report) -> Iterator[str]:
    """A line for each group: how many of its checks are well, and how many do not apply."""
    groups: dict[str, Counter[Status]] = {}
    for finding in report.findings:
        groups.setdefault(group(finding), Counter())[finding.status] += 1
    for name, count in groups.items():
        words = ", ".join(
            f"{count[status]} {status.value}" for status in (Status.OK, Status.SKIP, *SHOWN) if count[status]
        )
        yield f"{name:<14}{words}"


def summary(report: Report) -> str:
    """All of it in one line."""
    words = ", ".join(f"{report.count(status)} {status.value}" for status in ORDER if report.count(status))
    lost = f", {len(report.unreachable)} not reached" if report.unreachable else ""
    return f"{len(report.nodes)} node(s){lost}: {words or 'nothing was checked'}"


def short(report: Report) -> Iterator[str]:
    """A line for each finding that is not well, then the summary."""
    for finding in worst_first(report):
        if finding.status in SHOWN:
            node = f"{finding.node} " if finding.node else ""
            yield printable(f"{finding.status.value} {node}{finding.id}: {' '.join(finding.evidence.split())}")
    for name, error in report.unreachable.items():
        yield printable(" ".join(f"NO WAY {name}: {error.what}: {error.why}".split()))
    yield summary(report)


def junit(report: Report) -> str:
    """JUnit's XML: a suite for each node, a case for each check; WARN passes with words, UNKNOWN counts as skipped."""
    root = ET.Element("testsuites", name="shoal doctor")
    suites = {name: ET.SubElement(root, "testsuite", name=_legal(name or "all nodes")) for name in _suites(report)}
    for finding in report.findings:
        case = ET.SubElement(suites[finding.node], "testcase", classname=group(finding), name=finding.id)
        _outcome(case, finding)
    for name, error in report.unreachable.items():
        suite = ET.SubElement(root, "testsuite", name=_legal(name))
        ET.SubElement(
            ET.SubElement(suite, "testcase", classname="host", name="reached"), "error", message=_legal(error.what)
        )
    for suite in root:
        for kind, tag in (("tests", "testcase"), ("failures", "failure"), ("skipped", "skipped"), ("errors", "error")):
            suite.set(kind, str(len(list(suite.iter(tag)))))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suites(report: Report) -> list[str]:
    return list(dict.fromkeys((*report.nodes, *(finding.node for finding in report.findings))))


def _outcome(case: ET.Element, finding: Finding) -> None:
    tags = {Status.FAIL: "failure", Status.SKIP: "skipped", Status.UNKNOWN: "skipped", Status.WARN: "system-out"}
    tag = tags.get(finding.status)
    if tag is None:
        return
    outcome = ET.SubElement(case, tag)
    said = _legal(f"{finding.title}: {finding.evidence}")
    if tag == "system-out":
        outcome.text = _legal(f"WARN {said}\nfix: {finding.fix}")
    else:
        outcome.set("message", f"{finding.status.value} {said}")
        outcome.text = _legal(f"fix: {finding.fix}") if finding.fix else None


def _legal(text: str) -> str:
    return ILLEGAL.sub("\ufffd", text)


def explained(check: Check[Any]) -> str:
    """All that is known of a check before it is run."""
    about = check.about or check.title
    lines = (
        f"{check.id}: {check.title}",
        "",
        about,
        "",
        f"severity  {check.severity.value}",
        f"scope     {check.scope.value}",
        f"reads     {', '.join(check.needs) or 'nothing of its own'}",
        f"page      {link(check.id)}",
    )
    return "\n".join(lines)


def listed(check: Check[Any]) -> dict[str, str]:
    """A check's row of the list."""
    return {
        "id": check.id,
        "title": check.title,
        "group": check.group,
        "severity": check.severity.value,
        "scope": check.scope.value,
    }
