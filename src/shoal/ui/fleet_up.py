"""How a cluster on many hosts is brought up on a terminal: through the same observers as a local one."""

import sys
from collections.abc import Callable

import click

from shoal.errors import ShoalError
from shoal.ops.bringup import Ready
from shoal.ops.fleet.verbs import Interrupted, Speaker
from shoal.ui import observers
from shoal.ui.fail import error_line
from shoal.ui.interrupt import INTERRUPTED, terminated_is_interrupted


def carried_out(work: Callable[[Speaker], Ready | None], *, as_json: bool) -> None:
    """Let it happen, show it, and say how it ended."""
    try:
        with terminated_is_interrupted(), observers.choose(as_json=as_json, detached=True) as observer:
            ready = work(Speaker(observer.note, observer.status))
            if ready is not None:
                observer.ready(ready)
            else:
                observer.note("nothing to change: every host is as planned, and a token comes")
    except Interrupted as stopped:
        click.echo(f"interrupted; it came as far as: {stopped.stage}\nnext: {stopped.onward}", err=True)
        sys.exit(INTERRUPTED)
    except KeyboardInterrupt:
        click.echo("interrupted: nothing was changed", err=True)
        sys.exit(INTERRUPTED)
    except ShoalError as error:
        if as_json:
            click.echo(error_line(error))
        raise
