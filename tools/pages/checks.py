"""The doctor's checks: a section for each."""

from collections import Counter
from itertools import groupby
from typing import Any

from pages.markdown import code, page, table
from shoal.checks.base import Check
from shoal.checks.catalogue import EVERY

ABOUT = """\
`shoal doctor` runs these checks. Each reads facts that were gathered once, and says one of five things: `OK`; `WARN`,
it works and will not for long or not well; `FAIL`, it does not work; `SKIP`, it does not apply to this machine;
`UNKNOWN`, it could not be told, which is never "broken".

*Severity* says what a failure means: `fatal` stops a start, `error` breaks it later or halves its speed, `warning` is
worth a look, `info` is for the reader. *Scope* says what is looked at. `shoal doctor --explain ID` prints a section.
"""


def checks() -> str:
    """Counts by group, then all checks."""
    groups = Counter(check.group for check in EVERY)
    parts = [
        f"{len(EVERY)} checks.\n",
        table(("group", "checks"), ((f"[{name}](#{name})", str(count)) for name, count in groups.items())),
    ]
    for name, members in groupby(
        sorted(EVERY, key=lambda check: list(groups).index(check.group)), lambda check: check.group
    ):
        parts.append(f"## {name}\n")
        parts += [_section(check) for check in members]
    return page("Checks of the doctor", ABOUT, *parts)


def _section(check: Check[Any]) -> str:
    head = f'<a id="{check.id}"></a>\n\n### {code(check.id)}\n\n'
    reads = f" Reads: {', '.join(check.needs)}." if check.needs else ""
    facts = f"Severity: {check.severity.value}. Scope: {check.scope.value}.{reads}"
    return f"{head}**{check.title}**\n\n{check.about}\n\n{facts}\n"
