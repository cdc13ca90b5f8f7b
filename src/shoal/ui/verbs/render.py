"""``shoal render``."""

from pathlib import Path

import click

from shoal.ops import render
from shoal.plan.container import PROFILES, ROLES, Profile, Role
from shoal.ui.overwrite import agree


@click.command("render")
@click.argument("role", type=click.Choice(ROLES))
@click.option(
    "--profile", type=click.Choice(PROFILES), default=PROFILES[0], show_default=True, help="What the node has."
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="The folder; default: named after the role."
)
@click.option("--yes", "-y", is_flag=True, help="Overwrite without asking.")
def verb(role: Role, profile: Profile, output: Path | None, yes: bool) -> None:
    """Write the container deployment of a node: compose.yaml, .env.example, README.md and shoal.pyz.

    What it would overwrite is shown first. A file .env is never touched.
    """
    folder = output or Path(role)
    planned = render.changes(role, profile, folder)
    if (text := render.diff(planned)) and not yes:
        agree(text, folder)
    render.write(planned)
    click.echo("\n".join(f"wrote {change.path}" for change in planned) or f"{folder} is as it should be")
    if not (folder / ".env").exists():
        click.echo(f"next, in {folder}: cp .env.example .env, edit the three settings at its top, docker compose up -d")
