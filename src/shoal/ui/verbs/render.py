"""``shoal render``."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from shoal.errors import ShoalError, UsageError
from shoal.ops import render
from shoal.plan.container import PROFILES, ROLES, Profile, Role
from shoal.spec.environ import environ
from shoal.spec.nearest import did_you_mean

FILE = click.Path(path_type=Path)
EDIT = "cp .env.example .env, edit the three settings at its top, docker compose up -d"


@click.command("render")
@click.argument("what", metavar="worker|head|NODE")
@click.option("-f", "--file", type=FILE, help="NODE is a host of this shoal.yaml.")
@click.option("--profile", type=click.Choice(PROFILES), help=f"What the node has. Default: {PROFILES[0]}.")
@click.option("-o", "--output", type=FILE, metavar="DIR", help="The folder; default: named after the role, or NODE.")
@click.option("--yes", "-y", is_flag=True, help="Overwrite without asking.")
def verb(what: str, file: Path | None, profile: Profile | None, output: Path | None, yes: bool) -> None:
    """Write the container deployment of a node: compose.yaml, its environment, and shoal.pyz.

    For a role the folder has .env.example and README.md, to be filled in. For a host of a file it has .env, filled in
    as `shoal plan` says; the hosts are looked at for that. What would be overwritten is shown first. A file .env that
    is there is never touched, and no secret is in any of the files.
    """
    folder = output or Path(what)
    if file is None:
        _carry(render.changes(_role(what), profile or PROFILES[0], folder), folder, yes=yes)
        if not (folder / ".env").exists():
            click.echo(f"next, in {folder}: {EDIT}")
        return
    if profile:
        raise UsageError("--profile goes with a role: with -f it is what the host has")
    node, secrets = render.planned_node(file, what, environ(), folder)
    _carry(render.node_changes(node, folder), folder, yes=yes)
    _next(secrets, folder, node.ssh)


def _role(word: str) -> Role:
    role = next((role for role in ROLES if role == word), None)
    if role is None:
        raise UsageError(
            f'no role "{word}"; {did_you_mean(word, ROLES)}', fix=f"a host of a file: shoal render -f FILE {word}"
        )
    return role


def _carry(planned: tuple[render.Change, ...], folder: Path, *, yes: bool) -> None:
    """Write what is planned, after a question where it overwrites."""
    if (text := render.diff(planned)) and not yes:
        _agree(text, folder)
    render.write(planned)
    click.echo("\n".join(f"wrote {change.path}" for change in planned) or f"{folder} is as it should be")


def _next(secrets: Sequence[str], folder: Path, destination: str) -> None:
    """What is left to do by hand: the secrets, which are in no rendered file, and the way there."""
    copy = f"scp -rp {shlex.quote(str(folder))} {destination}:"
    click.echo("\n  ".join(["next:", *secrets, copy, "there, in the folder: docker compose up -d"]))


def _agree(text: str, folder: Path) -> None:
    """Show the diff and ask; where nobody can answer, refuse."""
    click.echo(text, nl=False)
    if not sys.stdin.isatty():
        raise ShoalError(f"files in {folder} would be overwritten", fix="look at the diff above, then add --yes")
    click.confirm(f"Overwrite these files in {folder}?", abort=True)
