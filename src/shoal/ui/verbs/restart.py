"""``shoal restart``."""

from pathlib import Path

import click

from shoal.errors import UsageError
from shoal.ops.fleet import running
from shoal.ops.reach import supervisor
from shoal.ops.restart import restart
from shoal.spec.environ import environ

FAR_PACE = 2.0  # seconds between two looks through ssh


@click.command("restart")
@click.option("-f", "--file", type=click.Path(path_type=Path), help="A shoal.yaml. Default: the local cluster.")
@click.option("--now", is_flag=True, help="Do not wait for running requests.")
@click.option("--rolling", is_flag=True, help="Renew the workers' Ray as well, one node after the other.")
@click.option("--timeout", default=1800.0, show_default=True, metavar="S", help="Seconds to wait for a token.")
def verb(file: Path | None, now: bool, rolling: bool, timeout: float) -> None:
    """Restart the engine, and wait until a token comes again.

    While running requests finish (SHOAL_DRAIN_TIMEOUT), new ones are answered with 503 and Retry-After. An engine that
    has given up is tried again. With -f the order is given on the head, over ssh.
    """
    if now and rolling:
        raise UsageError(
            "--now and --rolling exclude each other: a rolling restart drains first", fix="give one of them"
        )
    how = "now" if now else "rolling" if rolling else "drain"
    if file is None:
        restart(supervisor(environ()), how, click.echo, timeout)
    else:
        with running.of_file(file):
            far = running.by_head(file)
            click.echo(f"restart ({how}): asked of the supervisor on {far.head.name}")
            restart(far, how, click.echo, timeout, FAR_PACE)
    click.echo("ready: a token was produced")
