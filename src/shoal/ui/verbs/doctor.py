"""``shoal doctor``."""

import json
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from shoal.checks.base import Severity, Status
from shoal.checks.catalogue import EVERY
from shoal.checks.run import Choice, Report
from shoal.errors import UsageError
from shoal.ops.doctor import examine, hosts_named
from shoal.ops.repair import Memory
from shoal.spec.environ import environ, state_dir
from shoal.spec.nearest import did_you_mean
from shoal.ui import doctor_page, fixing

FORMS = ("short", "json", "junit")


@click.command("doctor")
@click.argument("hosts", nargs=-1, metavar="[HOST]...")
@click.option(
    "--from", "captures", multiple=True, type=click.Path(path_type=Path), metavar="FILE|DIR", help="Judge a capture."
)
@click.option(
    "--before",
    "earlier",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE|DIR",
    help="An earlier capture of the same machines: counters are judged by what they grew since.",
)
@click.option("--short", "form", flag_value="short", help="One line for each finding.")
@click.option("--json", "form", flag_value="json", help="One JSON document.")
@click.option("--junit", "form", flag_value="junit", help="JUnit's XML.")
@click.option("--only", multiple=True, metavar="GROUP|ID", help="Run these checks and no others.")
@click.option("--ignore", multiple=True, metavar="ID|GROUP", help="Leave these checks out.")
@click.option(
    "--severity", type=click.Choice([item.value for item in Severity]), default="info", help="The least that matters."
)
@click.option("--explain", metavar="ID", help="Say what a check looks at, and why.")
@click.option("--watch", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option("--fix", is_flag=True, help="Offer to mend what can be put back: sysctl, MTU, locked memory, modules.")
@click.option("--undo", is_flag=True, help="Offer to put back what --fix changed.")
@click.option("--yes", is_flag=True, help="Agree to all that --fix or --undo offers.")
@click.option("--every", default=10.0, type=click.FloatRange(min=1), metavar="SECONDS", help="How often --watch looks.")
def verb(
    hosts: tuple[str, ...],
    captures: tuple[Path, ...],
    earlier: tuple[Path, ...],
    form: str | None,
    only: tuple[str, ...],
    ignore: tuple[str, ...],
    severity: str,
    explain: str | None,
    watch: bool,
    every: float,
    fix: bool,
    undo: bool,
    yes: bool,
) -> None:
    """Say what is wrong on these machines, and the command that mends it. Without a name: this machine.

    A HOST is a name of your ssh config, or user@host. It needs python3 alone. Nothing is changed on it but by --fix,
    which shows each command first, and what undoes it.

    Exit code 0 where nothing fails, 1 where something does, 2 for a wrong call, 3 where a host could not be asked.
    """
    if explain:
        click.echo(_explained(explain))
        return
    if undo:
        sys.exit(fixing.undo(Memory(state_dir(environ())), yes=yes))
    if fix and (captures or watch or form):
        raise UsageError("--fix changes machines: it goes with hosts, and not with --from, --watch or another form")
    choice = Choice(only, ignore, Severity(severity))
    machines = hosts_named(hosts or (() if captures else ("localhost",)))
    look = partial(examine, machines, captures, choice, earlier=earlier)
    if watch:
        sys.exit(_watch(look, form, every))
    report = look()
    code = _say(report, form)
    sys.exit(fixing.fix(report, machines, Memory(state_dir(environ())), yes=yes) or code if fix else code)


def _say(report: Report, form: str | None) -> int:
    if form == "json":
        click.echo(json.dumps(doctor_page.document(report), ensure_ascii=False, indent=2))
    elif form == "junit":
        click.echo(doctor_page.junit(report), nl=False)
    elif form == "short":
        click.echo("\n".join(doctor_page.short(report)))
    else:
        colour = False if environ().get("NO_COLOR") else None
        for line in doctor_page.page(report, shutil.get_terminal_size().columns):
            click.echo(line, color=colour)
    return report.exit_code


def _watch(look: Callable[..., Report], form: str | None, every: float) -> int:
    """The whole report, then what changes."""
    report = look()
    code = _say(report, form)
    try:
        while True:
            time.sleep(every)
            before, report = report, look(before=report.facts)
            for line in changes(before, report):
                click.echo(f"{time.strftime('%H:%M:%S')} {line}")
            code = report.exit_code
    except KeyboardInterrupt:
        return code


def changes(before: Report, after: Report) -> list[str]:
    """What became of each finding, and of each host."""
    was = {(item.node, item.id): item.status for item in before.findings}
    lines = []
    for item in after.findings:
        old = was.get((item.node, item.id), item.status)
        if old is not item.status:
            said = f": {item.evidence}" if item.evidence and item.status is not Status.OK else ""
            lines.append(f"{item.node or 'all nodes'} {item.id} {old.value} -> {item.status.value}{said}")
    lines += [
        f"{name} is not reached: {error.what}"
        for name, error in after.unreachable.items()
        if name not in before.unreachable
    ]
    return lines + [f"{name} is reached again" for name in before.unreachable if name not in after.unreachable]


def _explained(name: str) -> str:
    found = next((check for check in EVERY if check.id == name), None)
    if found is None:
        raise UsageError(
            f'no check "{name}"; {did_you_mean(name, [check.id for check in EVERY])}', fix="shoal checks list"
        )
    return doctor_page.explained(found)
