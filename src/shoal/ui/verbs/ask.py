"""``shoal ask``."""

from pathlib import Path

import click

from shoal.errors import UsageError
from shoal.ops import local
from shoal.ops.ask import ask, require
from shoal.ops.fleet import running
from shoal.spec.environ import environ


@click.command("ask")
@click.argument("text")
@click.option("-f", "--file", type=click.Path(path_type=Path), help="A shoal.yaml. Default: the local cluster.")
@click.option("--stream", is_flag=True, help="Print the answer as it comes.")
@click.option("--max-tokens", default=256, show_default=True, help="Longest answer.")
@click.option("--temperature", default=0.0, show_default=True, help="0 gives the same answer each time.")
def verb(text: str, file: Path | None, stream: bool, max_tokens: int, temperature: float) -> None:
    """Ask the model TEXT and print its answer. With -f the head asks, over ssh."""
    if file is not None:
        if stream:
            raise UsageError("--stream and -f exclude each other: ssh brings the answer whole", fix="leave one out")
        with running.of_file(file):
            click.echo(running.by_head(file).ask(text, max_tokens, temperature).text)
        return
    record = require(local.running(environ()))

    def show(piece: str) -> None:
        if stream:
            click.echo(piece, nl=False)

    answer = ask(record, text, max_tokens=max_tokens, temperature=temperature, on_text=show)
    click.echo("" if stream else answer.text)
