"""``shoal push-image``."""

import sys
from pathlib import Path

import click

from shoal.ops.fleet.hosts import open_hosts
from shoal.ops.push.image import Wish, push_image
from shoal.plan.push import PORT
from shoal.spec import cluster
from shoal.spec.environ import environ
from shoal.ui.push_view import finish, shown


@click.command("push-image")
@click.argument("image", required=False, default="")
@click.option(
    "-f",
    "--file",
    type=click.Path(path_type=Path),
    default=cluster.DEFAULT_FILE,
    show_default=True,
    help="The cluster.",
)
@click.option("--port", type=click.IntRange(1024, 65535), default=PORT, show_default=True, help="Between the hosts.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def verb(image: str, file: Path, port: int, as_json: bool) -> None:
    """Bring IMAGE, by default the cluster's own, into the Docker of every host, once, and from there from host to host.

    It comes from this machine's Docker, from a host that has it, or from its registry. A host that has it is skipped;
    afterwards id and layers are compared.
    """
    wish = Wish(cluster.load(file), image, port)
    with shown(as_json=as_json) as observer:
        pushed = push_image(wish, open_hosts(wish.spec), environ(), observer)
    outcome = pushed.outcome
    first = f"image     {pushed.image}: {pushed.id}, {pushed.layers} layers, from {pushed.origin}"
    document = {"image": pushed.image, "id": pushed.id, "layers": pushed.layers, "origin": pushed.origin}
    sys.exit(finish(document, first, outcome, as_json=as_json))
