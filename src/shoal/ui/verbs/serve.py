"""``shoal serve``, called with more than that one word."""

import click


@click.command("serve")
def verb() -> None:
    """Run with no further words; everything is set by the environment (docs/reference/environment.md)."""
