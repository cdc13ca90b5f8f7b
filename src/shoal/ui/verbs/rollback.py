"""``shoal rollback``."""

from pathlib import Path

import click

from shoal.ops.fleet.verbs import rollback
from shoal.spec.cluster import DEFAULT_FILE
from shoal.spec.environ import environ
from shoal.ui.fleet_up import carried_out


@click.command("rollback")
@click.option(
    "-f", "--file", type=click.Path(path_type=Path), default=DEFAULT_FILE, show_default=True, help="The cluster file."
)
@click.option("--timeout", default=1800.0, show_default=True, metavar="S", help="Seconds until a token must come.")
@click.option("--json", "as_json", is_flag=True, help="Events as JSON lines.")
def verb(file: Path, timeout: float, as_json: bool) -> None:
    """Go back to the last release that produced a token, other than the one that is current.

    Its files are still on the hosts. The cluster file is left as it is: the next `shoal up` carries that one out again.
    """
    carried_out(lambda speaker: rollback(file, environ(), speaker, timeout), as_json=as_json)
