"""``shoal completion``."""

import click
from click.shell_completion import get_completion_class

from shoal.errors import UsageError


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def verb(ctx: click.Context, shell: str) -> None:
    """Print the completion script: eval "$(shoal completion bash)"."""
    maker = get_completion_class(shell)
    if maker is None:
        raise UsageError(f"no completion for {shell}")
    click.echo(maker(ctx.find_root().command, {}, "shoal", "_SHOAL_COMPLETE").source())
