"""``shoal ask``."""

import click

from shoal.ops import local
from shoal.ops.ask import ask, require
from shoal.spec.environ import environ


@click.command("ask")
@click.argument("text")
@click.option("--stream", is_flag=True, help="Print the answer as it comes.")
@click.option("--max-tokens", default=256, show_default=True, help="Longest answer.")
@click.option("--temperature", default=0.0, show_default=True, help="0 gives the same answer each time.")
def verb(text: str, stream: bool, max_tokens: int, temperature: float) -> None:
    """Ask the model TEXT and print its answer."""
    record = require(local.running(environ()))

    def show(piece: str) -> None:
        if stream:
            click.echo(piece, nl=False)

    answer = ask(record, text, max_tokens=max_tokens, temperature=temperature, on_text=show)
    click.echo("" if stream else answer.text)
