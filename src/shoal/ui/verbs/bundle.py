"""``shoal bundle``."""

import sys
import time
from pathlib import Path

import click

from shoal.errors import HostError, UsageError
from shoal.ops import bundle_places
from shoal.ops.bundle import make
from shoal.spec.environ import environ

ENDS = (".tar.gz", ".tgz")


@click.command("bundle")
@click.option("-f", "--file", type=click.Path(path_type=Path), help="A shoal.yaml. Default: the local cluster.")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="FILE", help="A name ending with .tar.gz.")
def verb(file: Path | None, out: Path | None) -> None:
    """Gather what a cluster can tell into one archive: status, plan, logs, journals, evidence, what the doctor reads.

    Keys, tokens and passwords are taken out of every file. Names and addresses stay: look at it before you send it.

    Exit code 0, or 3 where a host could not be asked; the archive has the others then.
    """
    env, now = environ(), time.time()
    cluster = bundle_places.of_file(file, env) if file else bundle_places.of_this_machine(env)
    path = out or Path(f"shoal-{cluster.name}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}.tar.gz")
    if not path.name.endswith(ENDS):
        raise UsageError(f"{path}: expected a name that ends with .tar.gz", fix=f"shoal bundle -o {path}.tar.gz")
    made, lost = make(cluster, path, lambda line: click.echo(line, err=True), now)
    for line in lost:
        click.echo(f"not reached: {line}", err=True)
    click.echo(f"{path}: {len(made.files)} files; {made.masked} secret value(s) taken out")
    click.echo(f"judge it: shoal doctor --from {path}")
    sys.exit(HostError.exit_code if lost else 0)
