"""``shoal up``."""

import signal
import sys
import time
from pathlib import Path

import click

from shoal.errors import ShoalError, UsageError
from shoal.ops import local
from shoal.ops.bringup import Ready, bring_up
from shoal.ops.fleet.verbs import up
from shoal.ops.local import Wish
from shoal.plan.local import check_nodes
from shoal.plan.models import DEFAULT, choose
from shoal.spec.cluster import DEFAULT_FILE
from shoal.spec.environ import environ
from shoal.spec.registry import builtin, load
from shoal.state.run import RunRecord
from shoal.state.status import ClusterState
from shoal.ui import observers
from shoal.ui.fail import error_line
from shoal.ui.fleet_up import carried_out
from shoal.ui.interrupt import INTERRUPTED, terminated_is_interrupted

PORT = click.IntRange(1024, 65000)


@click.command("up")
@click.option(
    "-f",
    "--file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"The cluster file, without --local; default: {DEFAULT_FILE}.",
)
@click.option("--timeout", default=1800.0, show_default=True, metavar="S", help="Without --local: seconds for a token.")
@click.option(
    "--local", "is_local", is_flag=True, help="Nodes are processes of this machine, on 127.0.0.1, 127.0.0.2, ..."
)
@click.option("--nodes", default=2, show_default=True, metavar="N", help="How many nodes.")
@click.option(
    "--model", default=DEFAULT, show_default=True, metavar="KEY", help="Registry key, or a model folder's path."
)
@click.option(
    "--models", type=click.Path(path_type=Path), metavar="FILE", help="A model registry beside the built-in one."
)
@click.option("--detach", "-d", is_flag=True, help="Return once a token was produced; leave it running.")
@click.option("--port", type=PORT, default=8000, show_default=True, help="Port of the API.")
@click.option(
    "--agent-port",
    type=PORT,
    default=8700,
    show_default=True,
    help="Port of the agents; the supervisor has the next one.",
)
@click.option(
    "--port-base", type=PORT, default=27000, show_default=True, help="First port of Ray's; a hundred per node."
)
@click.option(
    "--executor",
    type=click.Choice(["auto", "ray", "mp"]),
    default="auto",
    show_default=True,
    help="What holds the ranks: Ray, or vLLM's own processes; auto: Ray where it is installed.",
)
@click.option(
    "--join-timeout", default=120.0, show_default=True, metavar="S", help="Seconds the gate waits for the nodes."
)
@click.option("--json", "as_json", is_flag=True, help="Events as JSON lines.")
def verb(
    file: Path | None,
    timeout: float,
    is_local: bool,
    nodes: int,
    model: str,
    models: Path | None,
    detach: bool,
    port: int,
    agent_port: int,
    port_base: int,
    executor: str,
    join_timeout: float,
    as_json: bool,
) -> None:
    """Bring a cluster up, and ask its model a question.

    Without --local it carries out the plan of a cluster file on its hosts, and returns once the model has answered.
    What is as planned already is left alone.

    With --local it stays until Ctrl-C, which takes everything down. With --detach it returns once the cluster has
    answered, and `shoal down` takes it down.
    """
    if not is_local:
        return carried_out(lambda speaker: up(_file(file), environ(), speaker, timeout), as_json=as_json)
    if file is not None:
        raise UsageError("--local reads no cluster file", fix="shoal up --local, or: shoal up -f FILE")
    entry = choose(model, builtin() | (load(models) if models else {}))
    wish = Wish(check_nodes(nodes), entry, port, agent_port, agent_port + 1, port_base, join_timeout, executor)
    ready = _bring_up(wish, detach=detach, as_json=as_json)
    if not detach:
        _stay(ready.record, as_json=as_json)
    return None


def _file(file: Path | None) -> Path:
    """The file that was named, or the usual one where there is one."""
    found = file or Path(DEFAULT_FILE)
    if file is None and not found.is_file():
        fix = "shoal up --local   on this machine; on several: shoal init HOST..., then shoal up"
        raise UsageError(f"there is no {found} here, and no -f FILE", fix=fix)
    return found


def _bring_up(wish: Wish, *, detach: bool, as_json: bool) -> Ready:
    try:
        with terminated_is_interrupted(), observers.choose(as_json=as_json, detached=detach) as observer:
            ready = bring_up(wish, environ(), observer.note, observer.status)
            observer.ready(ready)
            return ready
    except KeyboardInterrupt:
        click.echo("interrupted: everything that was started has been taken down", err=True)
        sys.exit(INTERRUPTED)
    except ShoalError as error:
        if as_json:
            click.echo(error_line(error))
        raise


def _stay(record: RunRecord, *, as_json: bool) -> None:
    """Stay with the cluster until it is interrupted or gone; say when its state changes."""
    try:
        with terminated_is_interrupted():
            _watch(record, as_json=as_json)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        click.echo("\nstopping (logs are kept)", err=True)
        for line in local.down(environ()):
            click.echo(f"  {line}", err=True)


def _watch(record: RunRecord, *, as_json: bool) -> None:
    seen = ClusterState.READY
    while (now := local.running(environ())) is not None and now.run_id == record.run_id:
        time.sleep(2.0)
        state, detail = local.glance(record)
        if state is not seen:
            seen = state
            if not as_json:
                click.echo(f"{time.strftime('%H:%M:%S')}  {state.value}  {detail}")
    click.echo("taken down by another command", err=True)
