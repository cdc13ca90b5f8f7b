"""``shoal push-model``."""

import sys
from pathlib import Path

import click

from shoal.ops.fleet.hosts import open_hosts
from shoal.ops.push.model import Wish, push_model
from shoal.plan.push import PORT
from shoal.spec import cluster
from shoal.spec.environ import environ
from shoal.ui.push_view import finish, shown


@click.command("push-model")
@click.argument("model", required=False, default="")
@click.option(
    "-f",
    "--file",
    type=click.Path(path_type=Path),
    default=cluster.DEFAULT_FILE,
    show_default=True,
    help="The cluster.",
)
@click.option("--port", type=click.IntRange(1024, 65535), default=PORT, show_default=True, help="Between the hosts.")
@click.option("--anew", is_flag=True, help="Read every file again, and believe no remembered checksum.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def verb(model: str, file: Path, port: int, anew: bool, as_json: bool) -> None:
    """Bring MODEL, by default the cluster's own, to every host, once, and from there from host to host.

    MODEL is a folder of this machine, a key of the registry, /models/NAME which one of the hosts has, or
    ORGANISATION/MODEL of the hub. What is there is skipped, what is torn goes on, and every file's sha256 is compared.
    """
    wish = Wish(cluster.load(file), model, port, anew)
    with shown(as_json=as_json) as observer:
        pushed = push_model(wish, open_hosts(wish.spec), environ(), observer)
    outcome, served = pushed.outcome, pushed.served
    size = f"{pushed.files} files, {outcome.total / 1e9:.2f} GB"
    first = f"model     {served}: {size}, from {pushed.origin}"
    document = {"model": served, "origin": pushed.origin, "files": pushed.files, "bytes": outcome.total}
    sys.exit(finish(document, first, outcome, as_json=as_json))
