"""``shoal up``."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from shoal.errors import ShoalError, UsageError
from shoal.ops import local
from shoal.ops.bringup import Ready, bring_up
from shoal.ops.local import Wish
from shoal.plan.local import check_nodes
from shoal.plan.models import DEFAULT, choose
from shoal.spec.environ import environ
from shoal.spec.registry import builtin, load
from shoal.state.run import RunRecord
from shoal.state.status import ClusterState
from shoal.ui import observers
from shoal.ui.fail import error_line

INTERRUPTED = 130
PORT = click.IntRange(1024, 65000)


@click.command("up")
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
    "--join-timeout", default=120.0, show_default=True, metavar="S", help="Seconds the gate waits for the nodes."
)
@click.option("--json", "as_json", is_flag=True, help="Events as JSON lines.")
def verb(
    is_local: bool,
    nodes: int,
    model: str,
    models: Path | None,
    detach: bool,
    port: int,
    agent_port: int,
    port_base: int,
    join_timeout: float,
    as_json: bool,
) -> None:
    """Bring a cluster up, and ask its model a question.

    Attached, it stays until Ctrl-C, which takes everything down. With --detach it returns once the cluster has
    answered, and `shoal down` takes it down.
    """
    if not is_local:
        raise UsageError("only `shoal up --local` is built so far", fix="shoal up --local")
    entry = choose(model, builtin() | (load(models) if models else {}))
    wish = Wish(check_nodes(nodes), entry, port, agent_port, agent_port + 1, port_base, join_timeout)
    ready = _bring_up(wish, detach=detach, as_json=as_json)
    if not detach:
        _stay(ready.record, as_json=as_json)


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


@contextmanager
def terminated_is_interrupted() -> Iterator[None]:
    """Let SIGTERM and a closed terminal do what Ctrl-C does: take the cluster down, not leave it behind."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        # As if the key had been pressed: whoever waits, asyncio too, knows how to end by that.
        signal.raise_signal(signal.SIGINT)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
