"""``shoal autopsy``."""

from pathlib import Path

import click

from shoal.host.local import LocalHost
from shoal.ops.autopsy import autopsy
from shoal.ops.fleet import running
from shoal.ops.reach import reach
from shoal.spec.environ import environ


@click.command("autopsy")
@click.option("-f", "--file", type=click.Path(path_type=Path), help="a shoal.yaml; default: the local cluster")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="write the page to this file")
def verb(file: Path | None, output: Path | None) -> None:
    """Say where every rank of a stuck engine stands, and which one keeps the others waiting.

    Stacks by py-spy where it is installed and allowed, else as the kernel tells them; what each rank's NCCL said last.
    Nothing is ended. With -f the head asks all agents, or another node where the head cannot.
    """
    text = _far(file) if file else autopsy(reach(environ()))
    if output is None:
        click.echo(text, nl=False)
        return
    LocalHost().write(str(output), text, mode=0o600)
    click.echo(f"written to {output}")


def _far(file: Path) -> str:
    with running.of_file(file):
        return running.autopsy(file)
