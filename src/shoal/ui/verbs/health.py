"""``shoal health``, called with an option; ``__main__`` answers all other calls itself, without this library."""

import sys

import click

from shoal.spec.environ import environ
from shoal.ui.health import TARGETS, main


@click.command("health")
@click.argument("program", type=click.Choice(list(TARGETS)), default="agent")
def verb(program: str) -> None:
    """Say whether this node's agent, or the supervisor (serve), answers: exit code 0 or 1.

    The address is VLLM_HOST_IP, the port SHOAL_AGENT_PORT or SHOAL_SERVE_PORT.
    """
    sys.exit(main(environ(), [program]))
