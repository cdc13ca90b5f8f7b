"""Before files are overwritten: the diff, and the question."""

import sys
from pathlib import Path

import click

from shoal.errors import ShoalError


def agree(text: str, folder: Path) -> None:
    """Show the diff and ask; where nobody can answer, refuse."""
    click.echo(text, nl=False)
    if not sys.stdin.isatty():
        raise ShoalError(f"files in {folder} would be overwritten", fix="look at the diff above, then add --yes")
    click.confirm(f"Overwrite these files in {folder}?", abort=True)
