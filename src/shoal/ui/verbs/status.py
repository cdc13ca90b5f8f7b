"""``shoal status``."""

import sys

import click
from rich.console import Console

from shoal.errors import NotRunning
from shoal.ops import local
from shoal.ops.snapshot import snapshot
from shoal.spec.environ import environ
from shoal.state.status import ClusterState, ClusterStatus
from shoal.ui.observers import seconds, table


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="The document of docs/reference/status.md.")
def verb(as_json: bool) -> None:
    """Say what runs, and whether a token can be produced now.

    Exit code 0 while it is ready, 1 while it is not, 4 where nothing is up.
    """
    status = snapshot(local.running(environ()))
    if as_json:
        click.echo(status.model_dump_json(indent=2))
    else:
        _show(status)
    if status.state is ClusterState.DOWN:
        sys.exit(NotRunning.exit_code)
    sys.exit(0 if status.state is ClusterState.READY else 1)


def _show(status: ClusterStatus) -> None:
    console = Console()
    console.print(f"cluster {status.cluster}: [bold]{status.state.value}[/]", highlight=False)
    if status.state is ClusterState.DOWN:
        console.print("  nothing is up; bring it up with: shoal up --local", highlight=False)
        return
    console.print(table(status))
    if status.engine:
        age = status.engine.last_token_age_s
        console.print(f"start     {seconds(status.engine)}", highlight=False, soft_wrap=True)
        console.print(f"token     {'none yet' if age is None else f'{age:g} s ago'}", highlight=False)
        if told := status.engine.transport:
            words = f"transport {told.kind.value}{', DEGRADED' if told.degraded else ''}: {told.detail}"
            console.print(words, highlight=False, markup=False, soft_wrap=True)
    lines = {"endpoint": status.endpoint, "page": status.page, "API key": status.api_key_file}
    for name, value in lines.items():
        if value:
            console.print(f"{name:<9} {value}", highlight=False, markup=False, soft_wrap=True)
