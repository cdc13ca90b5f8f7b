"""``shoal events``."""

import time

import click

from shoal.ops import events, local
from shoal.spec.environ import environ, state_dir
from shoal.state.journal import FOLDER


@click.command("events")
@click.option("--since", default="1d", show_default=True, metavar="TIME", help="10m, 2h, 1d, or seconds since 1970.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--follow", "-F", is_flag=True, help="Go on with what happens from now on.")
def verb(since: str, as_json: bool, follow: bool) -> None:
    """Show what the nodes and the engine decided and saw, in the order of time.

    The journals of a local cluster are read here. In a node's container, the agents of SHOAL_EXPECT are asked as well.
    """
    env = environ()
    own = state_dir(env)
    folder = own if (own / FOLDER).is_dir() else local.cluster_dir(env)
    begin = events.moment(since, time.time())
    entries = events.follow(folder, env, begin) if follow else events.gather(folder, env, begin)
    try:
        for entry in entries:
            click.echo(entry.line() if as_json else events.row(entry, 8))
    except KeyboardInterrupt:
        return
