"""How a push is shown: a bar for each host on a terminal, nothing but the end elsewhere."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol, Self

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from shoal.ops.push.transfer import Observer, Outcome, Row
from shoal.ui.fail import show_error

INTERRUPTED = 130
WORDS = {"looks": "looks what is there", "takes": "", "whole": "has it", "waits": "waits"}


class View(Observer, Protocol):
    """An observer that begins and ends."""

    def __enter__(self) -> Self:
        """Begin to show."""
        ...

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        """Leave the terminal as it was."""


class Quiet:
    """Shows nothing: the end is told by the verb."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def note(self, text: str) -> None:
        """Nothing."""

    def moving(self, rows: Sequence[Row]) -> None:
        """Nothing."""


class Bars:
    """A bar for each host, with its rate."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TextColumn("{task.fields[words]}", style="dim"),
            console=Console(stderr=True),
            transient=True,
        )
        self._tasks: dict[tuple[str, str], TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._progress.stop()

    def note(self, text: str) -> None:
        """A line above the bars."""
        self._progress.console.print(text, markup=False, highlight=False)

    def moving(self, rows: Sequence[Row]) -> None:
        """The bars. What was there before is no speed: a bar begins anew when a host begins to take."""
        for row in rows:
            key = (row.name, "looks" if row.state == "looks" else "takes")
            if key not in self._tasks:
                self._drop(row.name)
                self._tasks[key] = self._progress.add_task(row.name, total=row.total, completed=row.held, words="")
            words = row.note or WORDS.get(row.state, row.state)
            self._progress.update(self._tasks[key], completed=row.held, total=row.total or None, words=words)

    def _drop(self, name: str) -> None:
        for key in [key for key in self._tasks if key[0] == name]:
            self._progress.remove_task(self._tasks.pop(key))


@contextmanager
def shown(*, as_json: bool) -> Iterator[View]:
    """Bars where somebody looks; and words for who interrupts it."""
    try:
        with Bars() if sys.stderr.isatty() and not as_json else Quiet() as view:
            yield view
    except KeyboardInterrupt:
        click.echo("interrupted: what has arrived is kept, and the next push goes on with it", err=True)
        sys.exit(INTERRUPTED)


def rate(outcome: Outcome) -> str:
    """What came to the hosts, and how fast: the most that one of them took, over the whole time."""
    most = max(outcome.moved.values(), default=0)
    if not most:
        return "nothing had to be moved"
    taken = sum(1 for size in outcome.moved.values() if size)
    return f"{most / 1e9:.2f} GB to {taken} host(s) in {outcome.seconds:.1f} s, {most / 1e6 / outcome.seconds:.0f} MB/s"


def finish(document: dict[str, Any], first: str, outcome: Outcome, *, as_json: bool) -> int:
    """Say what came of it; the exit code."""
    if as_json:
        failed = {name: {"what": e.what, "why": e.why, "fix": e.fix} for name, e in outcome.failed.items()}
        told = {"done": outcome.done, "failed": failed, "moved": dict(outcome.moved), "seconds": outcome.seconds}
        click.echo(json.dumps({"schema_version": 1, **document, **told}, indent=2, ensure_ascii=False))
    else:
        done, all_of_them = outcome.done, len(outcome.done) + len(outcome.failed)
        click.echo(first)
        click.echo(f"the same  on {len(done)} of {all_of_them} host(s): {', '.join(done) or 'none'}")
        click.echo(f"moved     {rate(outcome)}")
    for error in outcome.failed.values():
        show_error(error)
    return next((error.exit_code for error in outcome.failed.values()), 0)
