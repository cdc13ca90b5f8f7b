"""``shoal explain``."""

import json
import sys

import click
from rich.console import Console

from shoal.errors import UsageError
from shoal.ops import local
from shoal.ops.explain import explain_paths
from shoal.spec.environ import environ
from shoal.ui.explain_page import document, show


@click.command("explain")
@click.argument("logs", nargs=-1, metavar="[FILE|FOLDER|-]...")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def verb(logs: tuple[str, ...], as_json: bool) -> None:
    """Say what a log means: its cause, the line that shows it, and what mends it.

    Logs of NCCL, Ray, vLLM, torch, Docker and the kernel, with any prefix; gzip too. Several files are taken as the
    logs of one incident. Without a name: the logs of the local cluster.

    Exit code 0 where nothing wrong was found, 1 where something was, 2 where a file cannot be read.
    """
    explanation = explain_paths(logs or _own())
    if as_json:
        click.echo(json.dumps(document(explanation), ensure_ascii=False, indent=2))
    else:
        show(Console(), explanation)
    sys.exit(0 if explanation.status in {"ok", "empty"} else 1)


def _own() -> tuple[str, ...]:
    folder = local.cluster_dir(environ()) / "logs"
    if not folder.is_dir():
        raise UsageError("no log is named, and no local cluster was up here yet", fix="shoal explain FILE")
    return (str(folder),)
