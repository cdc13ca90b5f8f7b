"""``shoal events``."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from shoal.ops import events, local
from shoal.ops.fleet import running
from shoal.spec.environ import environ, state_dir
from shoal.state.journal import FOLDER, Entry

FAR_PAUSE = 2.0  # seconds between two looks through ssh


@click.command("events")
@click.option("-f", "--file", type=click.Path(path_type=Path), help="A shoal.yaml. Default: the local cluster.")
@click.option("--since", default="1d", show_default=True, metavar="TIME", help="10m, 2h, 1d, or seconds since 1970.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--follow", "-F", is_flag=True, help="Go on with what happens from now on.")
def verb(file: Path | None, since: str, as_json: bool, follow: bool) -> None:
    """Show what the nodes and the engine decided and saw, in the order of time.

    The journals of a local cluster are read here, those of a shoal.yaml on each of its hosts, over ssh. In a node's
    container, the agents of SHOAL_EXPECT are asked as well.
    """
    begin = events.moment(since, time.time())
    read = _of_file(file) if file else _here()
    entries = events.follow(read, begin, FAR_PAUSE if file else 0.5) if follow else read(begin)
    try:
        for entry in entries:
            click.echo(entry.line() if as_json else events.row(entry, 8))
    except KeyboardInterrupt:
        return


def _here() -> Callable[[float], list[Entry]]:
    env = environ()
    own = state_dir(env)
    return partial(events.gather, own if (own / FOLDER).is_dir() else local.cluster_dir(env), env)


def _of_file(file: Path) -> Callable[[float], list[Entry]]:
    with running.of_file(file):
        return running.events(file, lambda line: click.echo(line, err=True))
