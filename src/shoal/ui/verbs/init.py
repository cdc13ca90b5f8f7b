"""``shoal init``."""

from pathlib import Path

import click

from shoal.ops.doctor import hosts_named
from shoal.ops.init import look, write
from shoal.spec.cluster import DEFAULT_FILE
from shoal.ui.fail import show_error


@click.command("init")
@click.argument("hosts", nargs=-1, required=True, metavar="HOST...")
@click.option("-o", "--out", type=click.Path(path_type=Path), default=DEFAULT_FILE, show_default=True, help="The file.")
@click.option("--name", default="cluster", show_default=True, help="What the cluster is called.")
@click.option("--dry-run", is_flag=True, help="Print the file, and write nothing.")
def verb(hosts: tuple[str, ...], out: Path, name: str, dry_run: bool) -> None:
    """Look at machines, and write them down as a cluster: names, fabric addresses, GPUs, each with its reason.

    A HOST is a name of your ssh config, or user@host; the first is the head. Nothing is changed on any of them.
    """
    text = look(name, hosts_named(hosts), out, show_error)
    if dry_run:
        click.echo(text, nl=False)
        return
    write(out, text)
    click.echo(f"wrote {out}: {len(hosts)} host(s). Read it, then: shoal fit -f {out}; shoal doctor {' '.join(hosts)}")
