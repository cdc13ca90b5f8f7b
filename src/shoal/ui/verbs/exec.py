"""``shoal exec``."""

import sys
from pathlib import Path

import click

from shoal.errors import UsageError
from shoal.ops.attach import attach, inside, one_host
from shoal.spec.cluster import DEFAULT_FILE


@click.command("exec", context_settings={"allow_interspersed_args": False}, options_metavar="[OPTIONS]")
@click.argument("node")
@click.argument("command", nargs=-1, metavar="-- COMMAND...")
@click.option("-f", "--file", type=click.Path(path_type=Path), default=DEFAULT_FILE, show_default=True)
@click.option("-c", "--container", default="", metavar="NAME", help="In this running container of the host.")
@click.option("--terminal/--no-terminal", default=None, help="Give it a terminal. Default: as this command has one.")
def verb(node: str, command: tuple[str, ...], file: Path, container: str, terminal: bool | None) -> None:
    """Run COMMAND on the host NODE of a cluster file, over ssh. Options stand before NODE.

    Input and output go through. The exit code is the command's own; 128 + n where signal n ended it; 3 where the host
    cannot be reached.
    """
    argv = command[1:] if command[:1] == ("--",) else command
    if not argv:
        raise UsageError("no command is named", fix=f"shoal exec {node} -- COMMAND...")
    wanted = sys.stdin.isatty() and sys.stdout.isatty() if terminal is None else terminal
    sys.exit(attach(one_host(file, node), inside(container, argv, terminal=wanted), terminal=wanted))
