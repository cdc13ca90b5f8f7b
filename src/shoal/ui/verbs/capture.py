"""``shoal capture``."""

from pathlib import Path

import click

from shoal.host.gather import late
from shoal.ops.doctor import hosts_named, keep


@click.command("capture")
@click.argument("host", default="localhost")
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A name ending with .tar.gz or .tar.",
)
def verb(host: str, out: Path) -> None:
    """Write what the doctor reads of a machine to a file, to be judged elsewhere: shoal doctor --from FILE.

    Secrets are left out: tokens and values of secret variables. Names, addresses and serial numbers stay.
    """
    taken = keep(hosts_named([host])[0], out)
    for words in late(taken):
        click.echo(f"late: {words}", err=True)
    click.echo(f"{out}: {len(taken.files)} files and {len(taken.replies)} replies of {taken.name}")
    click.echo(f"judge it: shoal doctor --from {out}")
