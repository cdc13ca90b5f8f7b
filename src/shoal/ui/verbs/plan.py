"""``shoal plan``."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from shoal.ops.fleet.planning import prepare
from shoal.plan.fleet_changes import changes, difference, not_at_boot
from shoal.spec.cluster import DEFAULT_FILE
from shoal.spec.environ import environ
from shoal.ui.fleet_page import page, stands, summary


@click.command("plan")
@click.option(
    "-f", "--file", type=click.Path(path_type=Path), default=DEFAULT_FILE, show_default=True, help="The cluster file."
)
@click.option("--json", "as_json", is_flag=True, help="The plan as one document; secrets are references.")
@click.option("--diff", "as_diff", is_flag=True, help="Against what is on the hosts.")
def verb(file: Path, as_json: bool, as_diff: bool) -> None:
    """Show what `shoal up` would do: files, environment, ports and commands of each node, each with its reason.

    The hosts are looked at, and nothing is changed on them.
    """
    chair = prepare(file, environ())
    planned = changes(chair.plan, chair.standings)
    if as_diff and as_json:
        lines = difference(chair.plan, chair.standings)
        click.echo(json.dumps({"release": chair.plan.digest, "diff": lines, "changes": asdict(planned)}, indent=1))
    elif as_json:
        click.echo(chair.plan.model_dump_json(indent=1))
    else:
        shown = difference(chair.plan, chair.standings) if as_diff else page(chair.plan)
        alone = not_at_boot(chair.plan, chair.standings)
        click.echo("\n".join((*shown, *([alone] if alone else []), *stands(chair.desk.where()), summary(planned))))
