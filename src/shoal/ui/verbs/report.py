"""``shoal report``."""

from pathlib import Path

import click

from shoal.errors import UsageError
from shoal.host.local import LocalHost
from shoal.ops.doctor import hosts_named
from shoal.ops.report import Wish, gather
from shoal.spec.environ import environ
from shoal.ui.report_page import render

PATH = click.Path(path_type=Path)


@click.command("report")
@click.argument("hosts", nargs=-1, metavar="[HOST]...")
@click.option(
    "-o", "--output", type=PATH, default=Path("report.html"), show_default=True, metavar="FILE", help="The page."
)
@click.option("-f", "--file", type=PATH, help="A shoal.yaml: its hosts are read.")
@click.option("--from", "captures", multiple=True, type=PATH, metavar="FILE|DIR", help="Tell of a capture instead.")
@click.option("--bench", multiple=True, type=PATH, metavar="FILE", help="A result of `shoal bench fabric --baseline`.")
@click.option("--proof", type=PATH, metavar="FILE", help="What `shoal prove --json` printed.")
def verb(
    hosts: tuple[str, ...],
    output: Path,
    file: Path | None,
    captures: tuple[Path, ...],
    bench: tuple[Path, ...],
    proof: Path | None,
) -> None:
    """Write one page about a cluster, for a ticket or a colleague: state, findings with fixes, plan, machines, proof,
    bench, events.

    The machines are read as `shoal doctor` reads them: the HOSTs, those of a shoal.yaml, or this one. The cluster that
    is up there is asked besides. The page is one file: it loads nothing and runs nothing. A secret that is known, or
    looks like one, is left out.
    """
    if hosts and file:
        raise UsageError("both a cluster file and hosts", fix="name one of them")
    contents = gather(Wish(hosts_named(hosts), file, captures, bench, proof), environ())
    LocalHost().write(str(output), render(contents), mode=0o600)
    click.echo(f"wrote {output}")
