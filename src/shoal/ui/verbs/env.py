"""``shoal env``."""

import json
import re
import sys
from dataclasses import asdict
from pathlib import Path

import click

from shoal.checks.env_check import check
from shoal.checks.env_remarks import Remark, Role, Severity
from shoal.errors import UsageError
from shoal.nccl.variables import FIRST, Version, dotted, parse_version
from shoal.spec import dotenv


@click.group("env")
def verb() -> None:
    """Look at an environment file before anything reads it."""


@verb.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--role", type=click.Choice(["head", "worker"]), help="What the node is to be; default: RAY_MODE's word.")
@click.option("--nccl", "version", metavar="VERSION", help="Judge NCCL_* for this NCCL, for example 2.27.3.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def check_file(file: Path, role: Role | None, version: str | None, as_json: bool) -> None:
    """Say what is wrong in a .env, line by line, and how to mend it.

    Exit code 0 where nothing is wrong, 1 where something is, 2 where the file cannot be read.
    """
    nccl = _version(version) if version else None
    text, mode = dotenv.read(file)
    remarks = check(text, role=role, nccl=nccl, mode=mode)
    wrong = any(remark.severity is not Severity.INFO for remark in remarks)
    if as_json:
        head = {"schema_version": 1, "file": str(file), "nccl": nccl and dotted(nccl), "ok": not wrong}
        click.echo(
            json.dumps(head | {"findings": [asdict(remark) for remark in remarks]}, ensure_ascii=False, indent=2)
        )
    else:
        click.echo(_page(file, remarks))
    sys.exit(1 if wrong else 0)


def _version(text: str) -> Version:
    version = parse_version(text)
    if version is None or version < FIRST:
        raise UsageError(f"--nccl {text}: expected {dotted(FIRST)} or newer", fix="shoal env check FILE --nccl 2.27.3")
    return version


def _page(file: Path, remarks: tuple[Remark, ...]) -> str:
    """All remarks, and their count in the last line."""
    count = {severity: sum(remark.severity is severity for remark in remarks) for severity in Severity}
    words = ", ".join(f"{number} {severity}" for severity, number in count.items() if number)
    return "\n".join([*(_lines(file, remark) for remark in remarks), f"{file}: {words or 'nothing to say'}"])


def _lines(file: Path, remark: Remark) -> str:
    where = f"{file}:{remark.line}" if remark.line else str(file)
    value = f"={remark.value}" if remark.line else ""
    subject = f"{remark.variable}{value}: " if remark.variable else ""
    mend = re.sub(r"\bFILE\b", lambda _: str(file), remark.fix)
    fix = f"\n    fix: {mend}" if mend else ""
    return f"{where}: {remark.severity} {subject}{remark.what}{fix}"
