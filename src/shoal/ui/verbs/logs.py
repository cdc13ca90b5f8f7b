"""``shoal logs``."""

import click

from shoal.ops import local, logs
from shoal.spec.environ import environ


@click.command("logs")
@click.argument("node", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on with what is written from now on.")
def verb(node: str | None, follow: bool) -> None:
    """Show what was said: by all, or by NODE (head, worker-1, ..., engine, vllm, head.ray)."""
    folder = local.cluster_dir(environ()) / "logs"
    names = logs.choose(folder, node)
    width = max(map(len, names), default=0) if node is None else 0
    positions: dict[str, int] = {}
    lines = logs.follow(folder, names, positions) if follow else logs.read(folder, names, positions)
    try:
        for line in lines:
            click.echo(f"{line.speaker:<{width}} | {line.text}" if width else line.text)
    except KeyboardInterrupt:
        return
