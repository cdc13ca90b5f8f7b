"""``shoal fabric``."""

import json
import sys
from pathlib import Path

import click
from rich.console import Console

from shoal.errors import HostError
from shoal.ops.doctor import hosts_named
from shoal.ops.fabric import fabric, parse_nccl
from shoal.plan.fabric import document
from shoal.ui.fabric_page import show
from shoal.ui.fail import show_error

PATH = click.Path(path_type=Path)


@click.command("fabric")
@click.argument("hosts", nargs=-1, metavar="[HOST]...")
@click.option("--from", "captures", type=PATH, multiple=True, metavar="FILE|DIR", help="A captured node; repeatable.")
@click.option("--nccl", "version", metavar="VERSION", help="Predict this NCCL; default: the one that is found.")
@click.option("--env", "env_file", type=PATH, metavar="FILE", help="A .env that is in force on every node.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def verb(
    hosts: tuple[str, ...], captures: tuple[Path, ...], version: str | None, env_file: Path | None, as_json: bool
) -> None:
    """Say how NCCL uses each node's HCAs, and which settings the fabric needs, with the reasons.

    HOSTs are asked over ssh. Without a name: this machine. Nothing is changed anywhere.

    Exit code 0 where there is a plan, 2 where the call is wrong, 3 where a host could not be asked.
    """
    nccl = parse_nccl(version) if version else None
    machines = hosts_named(hosts or (() if captures else ("localhost",)))
    answer = fabric(machines, captures, nccl=nccl, env_file=env_file)
    if as_json:
        missing = {name: error.what for name, error in answer.unreachable.items()}
        click.echo(json.dumps(document(answer.fabric, answer.source) | {"unreachable": missing}, indent=2))
    else:
        show(Console(), answer.fabric, answer.source)
    for error in answer.unreachable.values():
        show_error(error)
    sys.exit(HostError.exit_code if answer.unreachable else 0)
