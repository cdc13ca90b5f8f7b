"""``shoal status``."""

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from shoal.errors import HostError, NotRunning
from shoal.ops.status import reader
from shoal.spec.environ import environ
from shoal.state.status import ClusterState, ClusterStatus
from shoal.ui.observers import Json, Plain, seconds, table

Read = Callable[[], ClusterStatus]


@click.command("status")
@click.option("-f", "--file", type=click.Path(path_type=Path), help="A shoal.yaml. Default: the local cluster.")
@click.option("--json", "as_json", is_flag=True, help="The document of docs/reference/status.md.")
@click.option("--watch", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option(
    "--every", default=2.0, type=click.FloatRange(min=0.1), metavar="SECONDS", help="How often --watch looks."
)
def verb(file: Path | None, as_json: bool, watch: bool, every: float) -> None:
    """Say what runs, and whether a token can be produced now.

    Exit code 0 while it is ready, 1 while it is not, 3 where no host can be asked, 4 where nothing is up.
    """
    read = reader(file, environ())
    bring_up = f"shoal up -f {file}" if file else "shoal up --local"
    if watch:
        sys.exit(_watch(read, every, bring_up, as_json=as_json))
    status = read()
    if as_json:
        click.echo(status.model_dump_json(indent=2))
    else:
        for part in page(status, bring_up):
            Console().print(part, soft_wrap=isinstance(part, Text))
    sys.exit(code(status))


def code(status: ClusterStatus) -> int:
    """The exit code that a state means."""
    if status.state is ClusterState.DOWN:
        return NotRunning.exit_code
    return 0 if status.state is ClusterState.READY else 1


def page(status: ClusterStatus, bring_up: str) -> list[Text | Table]:
    """The status for people, part by part."""
    title = Text.assemble(f"cluster {status.cluster}: ", (status.state.value, "bold"))
    if status.state is ClusterState.DOWN:
        return [title, Text(f"  nothing is up; bring it up with: {bring_up}")]
    named = {"endpoint": status.endpoint, "page": status.page, "API key": status.api_key_file}
    lines = [f"{name:<9} {value}" for name, value in named.items() if value]
    return [title, table(status), *map(Text, (*_engine(status), *lines))]


def _engine(status: ClusterStatus) -> list[str]:
    engine = status.engine
    if engine is None:
        return []
    age = engine.last_token_age_s
    lines = [f"start     {seconds(engine)}", f"token     {'none yet' if age is None else f'{age:g} s ago'}"]
    if told := engine.transport:
        lines.append(f"transport {told.kind.value}{', DEGRADED' if told.degraded else ''}: {told.detail}")
    return lines


def _watch(read: Read, every: float, bring_up: str, *, as_json: bool) -> int:
    """Show each look: redrawn in place on a terminal, elsewhere what has changed. The code is the last state's."""
    live = Live(auto_refresh=False) if sys.stdout.isatty() and not as_json else None
    observer = Json() if as_json else Plain(detached=True)
    last = NotRunning.exit_code
    try:
        with live or nullcontext():
            while True:
                try:
                    status = read()
                except HostError as error:
                    last = error.exit_code
                    (live.console.print if live else observer.note)(error.what)
                else:
                    last = code(status)
                    if live:
                        live.update(Group(*page(status, bring_up)), refresh=True)
                    else:
                        observer.status(status)
                time.sleep(every)
    except KeyboardInterrupt:
        return last
