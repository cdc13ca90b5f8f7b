"""``shoal fit``."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from shoal.facts.meminfo import gib
from shoal.ops.fit import Fit, Wish, fit
from shoal.plan.fit import Layout
from shoal.plan.gpus import GPUS
from shoal.spec.environ import environ

FILE = click.Path(path_type=Path)


@click.command("fit")
@click.argument("model", required=False)
@click.option("-f", "--file", type=FILE, help="A shoal.yaml: its model, its hosts and their GPUs.")
@click.option("--nodes", type=click.IntRange(1, 4096), help="Machines.")
@click.option("--gpus", type=click.IntRange(1, 64), help="GPUs on each; default: those seen here, or 1.")
@click.option("--gpu", metavar="NAME", help=f"Kind of GPU: {', '.join(GPUS)}. Default: this machine's.")
@click.option("--memory", "memory_gib", type=click.FloatRange(1, 10_000), help="GiB of each GPU, instead of its kind.")
@click.option("--unified", is_flag=True, help="With --memory: it is the host's memory too.")
@click.option(
    "--context", type=click.IntRange(1), help="Tokens of the longest request; default: 32768, or the model's."
)
@click.option("--utilization", type=click.FloatRange(0.1, 1), default=0.9, show_default=True, help="As vLLM's own.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def verb(as_json: bool, **words: Any) -> None:
    """Say how MODEL fits on GPUs: a folder, a key of the registry, or ORGANISATION/MODEL of the hub.

    For each tensor, pipeline and data parallel size: GiB of weights and of KV cache on a rank, the longest request in
    tokens, and for each token what leaves a node over the fabric, and how often the token waits for it. Nothing is
    loaded and nothing started. Exit code 0 where it fits, 1 where it does not.
    """
    found = fit(Wish(**words), environ(), lambda step: click.echo(step, err=True))
    if as_json:
        click.echo(json.dumps(document(found), indent=2, ensure_ascii=False))
    else:
        _show(found)
    click.get_current_context().exit(0 if found.answer.best else 1)


def document(found: Fit) -> dict[str, Any]:
    """The JSON document."""
    return {
        "schema_version": 1,
        "model": found.name,
        "source": found.origin,
        "weight_bytes": found.weights.total,
        "wanted_context": found.wanted,
        "fleet": asdict(found.fleet),
        "layouts": [asdict(layout) for layout in found.answer.layouts],
        "recommended": asdict(found.answer.best) if found.answer.best else None,
        "why": found.answer.why,
    }


def _show(found: Fit) -> None:
    fleet, shape = found.fleet, found.shape
    kind = "unified memory" if fleet.unified else "memory"
    click.echo(f"model     {found.name} ({shape.architecture}): {found.origin}")
    click.echo(f"weights   {gib(found.weights.total)} in {shape.layers} layers, context up to {shape.context:,} tokens")
    click.echo(
        f"GPUs      {fleet.nodes} node(s) x {fleet.gpus}, {gib(fleet.memory)} {kind}, {gib(fleet.usable)} for vLLM"
    )
    possible = [layout for layout in found.answer.layouts if not layout.problem]
    if possible:
        Console().print(_table(possible, found.answer.best))
    for layout in found.answer.layouts:
        if layout.problem:
            click.echo(f"not TP {layout.tensor} x PP {layout.pipeline} x DP {layout.data}: {layout.problem}")
    click.echo(_advice(found))


def _table(layouts: list[Layout], best: Layout | None) -> Table:
    """A row for each layout that works: of one rank, of one request, of one token."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for head in ("TP", "PP", "DP", "weights", "KV cache", "longest", "fabric", "waits", ""):
        table.add_column(head, justify="left" if head == "" else "right", no_wrap=True)
    for layout in layouts:
        sizes = [str(layout.tensor), str(layout.pipeline), str(layout.data)]
        each = [gib(layout.weight_bytes), gib(layout.kv_bytes), f"{layout.context:,}"]
        fabric = [f"{layout.fabric_bytes / 1024:,.0f} KiB", str(layout.fabric_steps)]
        table.add_row(*sizes, *each, *fabric, "<- this" if layout == best else "")
    return table


def _advice(found: Fit) -> str:
    best = found.answer.best
    if best is None:
        return f"It does not fit: {found.answer.why}"
    return f"recommended: tensor parallel {best.tensor}, pipeline parallel {best.pipeline}\nbecause: {found.answer.why}"
