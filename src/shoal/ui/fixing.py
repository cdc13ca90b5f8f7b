"""``--fix`` and ``--undo``: each change is shown, asked for, and told."""

from collections.abc import Iterable, Sequence

import click

from shoal.checks import fixes
from shoal.checks.fixes import Step
from shoal.checks.run import Report
from shoal.errors import ShoalError
from shoal.host.base import Host
from shoal.ops.doctor import hosts_named
from shoal.ops.repair import Memory, apply, put_back


def fix(report: Report, hosts: Sequence[Host], memory: Memory, *, yes: bool) -> int:
    """Offer what can be mended safely. Returns the exit code: 0, or that of the last change that failed."""
    by_name = {host.name: host for host in hosts}
    plan = fixes.plan(report.findings, report.facts)
    if not plan.repairs:
        click.echo("nothing here can be mended safely: the fixes above are yours to type")
    code = 0
    for repair in plan.repairs:
        click.echo(f"mend {repair.check} on {repair.node}" + (f" ({repair.note})" if repair.note else ""))
        _lines("do", repair.steps)
        _lines("undo", repair.undo)
        if not (yes or click.confirm("  Do it?")):
            continue
        try:
            apply(repair, by_name[repair.node], memory)
        except ShoalError as error:
            code = _failed(error)
        else:
            click.echo("  done; shoal doctor --undo puts it back")
    return code


def undo(memory: Memory, *, yes: bool) -> int:
    """Offer to put back what was mended, the last first. Returns the exit code, as :func:`fix` does."""
    repairs = memory.undoable()
    if not repairs:
        click.echo("nothing was mended that is not undone")
    code = 0
    for repair in repairs:
        click.echo(f"undo {repair.check} on {repair.node}")
        _lines("do", repair.undo)
        if not (yes or click.confirm("  Put it back?")):
            continue
        try:
            put_back(repair, hosts_named([repair.node])[0], memory)
        except ShoalError as error:
            code = _failed(error)
        else:
            click.echo("  done")
    return code


def _lines(word: str, steps: Iterable[Step]) -> None:
    for step in steps:
        click.echo(f"  {word + ':':<6}{step}")


def _failed(error: ShoalError) -> int:
    click.echo("  " + str(error).replace("\n", "\n  "), err=True)
    return error.exit_code
