"""``shoal restart``."""

import click

from shoal.errors import UsageError
from shoal.ops.restart import restart
from shoal.spec.environ import environ


@click.command("restart")
@click.option("--now", is_flag=True, help="Do not wait for running requests.")
@click.option("--rolling", is_flag=True, help="Renew the workers' Ray as well, one node after the other.")
@click.option("--timeout", default=1800.0, show_default=True, metavar="S", help="Seconds to wait for a token.")
def verb(now: bool, rolling: bool, timeout: float) -> None:
    """Restart the engine, and wait until a token comes again.

    While running requests finish (SHOAL_DRAIN_TIMEOUT), new ones are answered with 503 and Retry-After. An engine that
    has given up is tried again.
    """
    if now and rolling:
        raise UsageError(
            "--now and --rolling exclude each other: a rolling restart drains first", fix="give one of them"
        )
    restart(environ(), "now" if now else "rolling" if rolling else "drain", click.echo, timeout)
    click.echo("ready: a token was produced")
