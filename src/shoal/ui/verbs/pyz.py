"""``shoal pyz``."""

from pathlib import Path

import click

from shoal.ops import pyz
from shoal.ops.render import Change, write


@click.command("pyz")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("shoal.pyz"),
    show_default=True,
    metavar="FILE",
    help="Where to write it.",
)
def verb(output: Path) -> None:
    """Write shoal as one file that runs with any Python 3.11 or newer."""
    data = pyz.build()
    write((Change(output, None, data),))
    click.echo(f"wrote {output} ({len(data)} bytes)")
