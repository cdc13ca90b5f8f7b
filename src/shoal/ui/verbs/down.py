"""``shoal down``."""

import click

from shoal.ops import local
from shoal.spec.environ import environ


@click.command("down")
def verb() -> None:
    """Take the cluster down and leave nothing behind. Only processes of ours are ended."""
    done = local.down(environ())
    for line in done:
        click.echo(line)
    click.echo("down" if done else "nothing was up")
