"""A fabric bench on a terminal: progress, then tables and the verdict."""

from collections.abc import Sequence
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from shoal.bench import rails
from shoal.bench.fabric import Wish
from shoal.bench.measure import Drift, Measured, Verdict, stragglers
from shoal.ui.sizes import size_label


class Bar:
    """A progress bar over the rows that will come. Use it as a context manager."""

    def __init__(self, wish: Wish) -> None:
        self._wish = wish
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
        self._progress = Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task("looking at the nodes", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def row(self, document: dict[str, Any]) -> None:
        """One document of the driver."""
        if document["kind"] == "look":
            total = self._wish.steps(len(document["ranks"]))
            self._progress.update(self._task, total=total, description=f"{len(document['ranks'])} ranks")
        elif document["kind"] == "collective":
            words = f"{document['name']} {size_label(document['size'])}"
            self._progress.update(self._task, advance=1, description=words)
        elif document["kind"] == "pair":
            words = f"rank {document['source']} to {document['target']}"
            self._progress.update(self._task, advance=1, description=words)


def show(console: Console, found: Measured, judged: Verdict) -> None:
    """Ranks, collectives, pairs, verdict."""
    console.print(_ranks(found))
    console.print(_rows(found))
    for name, why in found.unsupported:
        console.print(f"{name}: not measured, {found.backend} says: {why}")
    if found.pairs:
        console.print(_pairs(found))
    style = {True: "green", False: "bold red", None: ""}[judged.good]
    console.print(judged.words, style=style or None, highlight=False)


def _ranks(found: Measured) -> Table:
    table = Table("rank", "node", "interface", "HCAs", "torch", box=None, pad_edge=False)
    for at, rank in enumerate(found.ranks):
        table.add_row(str(at), rank.address, rank.interface, ", ".join(rank.hcas) or "none", rank.torch)
    return table


def _rows(found: Measured) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("collective", "size", "time, us", "algbw, GB/s", "busbw, GB/s"):
        table.add_column(title, justify="left" if title == "collective" else "right")
    for row in found.rows:
        table.add_row(
            row.name, size_label(row.size), f"{row.seconds * 1e6:.1f}", f"{row.algbw:.3f}", f"{row.busbw:.3f}"
        )
    return table


def _pairs(found: Measured) -> Table:
    slow = {item.rank for item in stragglers(found)}
    table = Table("GB/s", *(f"to {rank}" for rank in range(len(found.ranks))), box=None, pad_edge=False)
    speeds = {(pair.source, pair.target): pair.gbps for pair in found.pairs}
    for source in range(len(found.ranks)):
        cells = [
            f"{speeds[source, target]:.2f}" if (source, target) in speeds else "" for target in range(len(found.ranks))
        ]
        table.add_row(f"from {source}", *cells, style="bold red" if source in slow else "")
    return table


def show_drift(console: Console, moved: tuple[Drift, ...], origin: str) -> None:
    """What moved against a kept result."""
    if not moved:
        console.print(f"no busbw differs by more than 10 % from {origin}")
        return
    table = Table("collective", "size", "then, GB/s", "now, GB/s", "change", box=None, pad_edge=False)
    for item in moved:
        style = "red" if item.change < 0 else "green"
        change = f"{item.change:+.0%}"
        table.add_row(item.name, size_label(item.size), f"{item.before:.3f}", f"{item.now:.3f}", change, style=style)
    console.print(table)


def show_rails(console: Console, rows: Sequence[rails.Measured]) -> None:
    """What perftest measured on each rail."""
    table = Table("rail", "from", "to", "Gb/s", "us", "verdict", box=None, pad_edge=False)
    for row in rows:
        speed = "" if row.gbps is None else f"{row.gbps:.1f}"
        delay = "" if row.usec is None else f"{row.usec:.2f}"
        style = {"good": "green", "slow": "bold red", "failed": "bold red", "unknown": ""}[row.grade]
        cells = (row.way.rail, row.way.client.name, row.way.server.name, speed, delay)
        table.add_row(*map(escape, (*cells, f"{row.grade}: {row.words}")), style=style)
    console.print(table)
