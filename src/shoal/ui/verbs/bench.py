"""``shoal bench fabric``."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from shoal.bench.fabric import Wish, document, parse_size, read_document, run
from shoal.bench.measure import COLLECTIVES, Measured, drifts, link_rate, verdict
from shoal.bench.perftest import Shape
from shoal.bench.rails import measure as measure_rails
from shoal.errors import ConfigError, ShoalError, UsageError
from shoal.host.base import Host
from shoal.host.local import LocalHost
from shoal.ops.bench import rails_between, target
from shoal.ops.doctor import hosts_named
from shoal.ops.fleet.hosts import open_hosts
from shoal.spec import cluster
from shoal.spec.environ import environ
from shoal.ui.bench_report import Bar, show, show_drift, show_rails

PICTURES = {".svg", ".png", ".pdf"}


class Size(click.ParamType[int]):
    """Bytes, as 64M."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes of the word."""
        try:
            return value if isinstance(value, int) else parse_size(value)
        except ValueError:
            self.fail(f"{value!r}: expected 4K to 16G", param, ctx)


@click.group()
def verb() -> None:
    """Measure."""


@verb.command()
@click.option("--address", default="", help="Ray's GCS, HOST:PORT; default: RAY_ADDRESS, or the local cluster")
@click.option("--max-size", type=Size(), default="64M", show_default=True, help="largest message, up to 16G")
@click.option("--only", type=click.Choice(COLLECTIVES), multiple=True, help="this collective only (repeatable)")
@click.option("--no-pairs", is_flag=True, help="leave the rank-to-rank matrix out")
@click.option("--link", type=float, default=None, help="the link's rate in Gb/s; default: as the nodes say")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="write a picture: .svg, .png or .pdf")
@click.option("--baseline", type=click.Path(path_type=Path, dir_okay=False), help="keep the result in this file")
@click.option(
    "--compare", type=click.Path(path_type=Path, dir_okay=False), help="show what moved against a kept result"
)
@click.option("--json", "as_json", is_flag=True, help="one JSON document")
def fabric(
    address: str, max_size: int, only: tuple[str, ...], no_pairs: bool, link: float | None, as_json: bool, **files: Path
) -> None:
    """Measure what the fabric carries between all ranks of a Ray cluster.

    One task for each GPU, or for each node without GPUs. It is refused while an engine holds the GPUs. Ends with 1
    where the bandwidth is below three quarters of the link's rate, or a rank is slower than the others.
    """
    before = _kept(files["compare"])
    _check_picture(files["plot"])
    wish = Wish(max_size, only or COLLECTIVES, 0 if no_pairs else Wish.pair_size)
    where, env = target(environ(), address)
    with Bar(wish) as bar:
        found = run(sys.executable, where, env, wish, bar.row)
    rate = link or link_rate(found)
    _keep(files, found, rate)
    judged = verdict(found, rate)
    if as_json:
        click.echo(json.dumps(document(found, rate) | {"verdict": judged.words, "good": judged.good}, indent=2))
    else:
        show(Console(), found, judged)
        if before is not None:
            show_drift(Console(), drifts(before.rows, found.rows), str(files["compare"]))
    sys.exit(1 if judged.good is False else 0)


@verb.command()
@click.argument("hosts", nargs=-1, metavar="[HOST]...")
@click.option("-f", "--file", type=click.Path(path_type=Path), metavar="FILE", help="The hosts of a cluster file.")
@click.option("--size", type=Size(), default="1M", show_default=True, help="Bytes of a message.")
@click.option(
    "--seconds", type=click.IntRange(1, 60), default=3, show_default=True, help="How long each way is measured."
)
@click.option("--pairs", type=click.IntRange(1, 64), default=4, show_default=True, help="Queue pairs of each way.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def rdma(hosts: tuple[str, ...], file: Path | None, size: int, seconds: int, pairs: int, as_json: bool) -> None:
    """Measure each rail between HOSTs by perftest: ib_write_bw and ib_write_lat from neighbour to neighbour.

    HOSTs are asked over ssh, and need perftest, but no Ray and no GPU. What is carried is host memory. Ends with 1
    where a way fails or is slower than known hardware of its kind.
    """
    machines = _machines(hosts, file)
    found = rails_between(machines)
    shape = Shape(size, seconds, pairs)
    rows = []
    for row in measure_rails(found, {host.name: host for host in machines}, shape):
        click.echo(f"{row.way.client.name} to {row.way.server.name}: {row.words}", err=True)
        rows.append(row)
    if as_json:
        click.echo(json.dumps({"schema": 1, "shape": asdict(shape), "ways": [asdict(row) for row in rows]}, indent=2))
    else:
        show_rails(Console(), rows)
    sys.exit(1 if any(row.grade in {"slow", "failed"} for row in rows) else 0)


def _machines(hosts: tuple[str, ...], file: Path | None) -> tuple[Host, ...]:
    machines: tuple[Host, ...] = tuple(open_hosts(cluster.load(file)).values()) if file else ()
    machines += hosts_named(hosts)
    if len(machines) < 2:
        raise UsageError(
            f"{len(machines)} host: a transfer needs two", fix="shoal bench rdma HOST HOST, or -f shoal.yaml"
        )
    return machines


def _check_picture(file: Path | None) -> None:
    if file is not None and file.suffix.lower() not in PICTURES:
        raise UsageError(f"--plot {file}: expected a name that ends with .svg, .png or .pdf", fix="--plot fabric.svg")


def _kept(file: Path | None) -> Measured | None:
    if file is None:
        return None
    text = LocalHost().read(str(file))
    if text is None:
        raise ConfigError(f"cannot read {file}", fix="make one first: shoal bench fabric --baseline FILE")
    return read_document(text, str(file))


def _keep(files: dict[str, Path], found: Measured, rate: float | None) -> None:
    if files["baseline"] is not None:
        LocalHost().write(str(files["baseline"]), json.dumps(document(found, rate), indent=2) + "\n")
    if files["plot"] is not None:
        _draw(found, rate, files["plot"])


def _draw(found: Measured, rate: float | None, file: Path) -> None:
    try:
        from shoal.ui.plot import draw  # noqa: PLC0415 (matplotlib takes half a second, and only a picture needs it)
    except ImportError as error:
        raise ShoalError("a picture needs matplotlib", why=str(error), fix="pip install matplotlib") from error
    draw(found, rate, file)
