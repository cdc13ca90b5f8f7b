"""``shoal down``."""

import sys
from pathlib import Path

import click

from shoal.errors import UsageError
from shoal.ops import local
from shoal.ops.fleet.down import down
from shoal.spec.environ import environ
from shoal.ui.interrupt import INTERRUPTED


@click.command("down")
@click.option(
    "-f", "--file", type=click.Path(path_type=Path), metavar="FILE", help="Of the cluster in that file, on its hosts."
)
@click.option("--purge", is_flag=True, help="With -f: remove files, secrets, caches and models of the cluster as well.")
def verb(file: Path | None, purge: bool) -> None:
    """Take the cluster down and leave no process behind. Only processes of ours are ended.

    Without -f it is the local cluster. On hosts, the releases stay for the next `shoal up`, unless --purge is given.
    """
    if file is None and purge:
        raise UsageError("--purge needs -f FILE", fix="shoal down -f shoal.yaml --purge")
    done = local.down(environ()) if file is None else _of_hosts(file, purge=purge)
    for line in done:
        click.echo(line)
    click.echo("down" if done else "nothing was up")


def _of_hosts(file: Path, *, purge: bool) -> list[str]:
    try:
        return down(file, environ(), _tell, purge=purge)
    except KeyboardInterrupt:
        again = f"shoal down -f {file}{' --purge' if purge else ''}"
        click.echo(f"interrupted; some of it may still run\nnext: {again}   # goes on from there", err=True)
        sys.exit(INTERRUPTED)


def _tell(stage: str) -> None:
    click.echo(stage, err=True)
