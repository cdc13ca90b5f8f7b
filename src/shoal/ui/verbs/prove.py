"""``shoal prove``."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from shoal.bench.fabric import parse_size
from shoal.bench.proof import Proof
from shoal.errors import UsageError
from shoal.ops.bench import target
from shoal.ops.fleet import running
from shoal.ops.prove import Wish, prove
from shoal.ops.reach import reach
from shoal.spec.environ import environ
from shoal.ui.prove_page import page


@click.command("prove")
@click.option("-f", "--file", type=click.Path(path_type=Path), help="a shoal.yaml; default: the local cluster")
@click.option("--traffic", type=click.Choice(["engine", "bench"]), default=None, help="what is driven over the fabric")
@click.option("--seconds", default=10.0, show_default=True, help="how long the engine is kept busy")
@click.option("--bytes", "amount", default="", help="what COMMAND moves through each node, as 4G")
@click.option("--json", "as_json", is_flag=True, help="one JSON document")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def verb(
    file: Path | None, traffic: str | None, seconds: float, amount: str, as_json: bool, command: tuple[str, ...]
) -> None:
    """Prove that the traffic between the nodes goes over RDMA.

    Byte counters of every HCA are read before and after traffic: answers of the engine while it serves, else the
    fabric bench, or COMMAND with --bytes. With -f all that is done on the head, COMMAND too. Ends with 0 where it is
    proven, 1 where it is not.
    """
    wish = Wish(traffic or "", seconds, _bytes(amount, command), command)
    found = _far(file, wish) if file else prove(reach(environ()), lambda: target(environ(), ""), wish, _say)
    document = asdict(found) | {"proven": found.proven}
    click.echo(json.dumps(document, indent=2) if as_json else page(found))
    sys.exit(0 if found.proven else 1)


def _say(line: str) -> None:
    click.echo(line, err=True)


def _far(file: Path, wish: Wish) -> Proof:
    with running.of_file(file):
        far = running.by_head(file)
        _say(f"{far.head.name} looks at all nodes, drives the traffic, and looks again")
        found, said = far.prove(wish)
    for line in said:
        _say(line)
    return found


def _bytes(amount: str, command: tuple[str, ...]) -> int:
    if bool(amount) is not bool(command):
        fix = "shoal prove --bytes 4G -- ib_write_bw ..."
        raise UsageError("--bytes and COMMAND go together: the amount must be known", fix=fix)
    try:
        return parse_size(amount) if amount else 0
    except ValueError as error:
        raise UsageError(f"--bytes {error}", fix="--bytes 4G") from error
