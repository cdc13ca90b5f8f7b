"""``shoal checks``."""

import json

import click

from shoal.checks.catalogue import EVERY
from shoal.ui.doctor_page import listed


@click.group("checks")
def verb() -> None:
    """What the doctor looks at."""


@verb.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
def list_checks(as_json: bool) -> None:
    """All checks: id, severity, scope and what is true where it passes."""
    rows = [listed(check) for check in EVERY]
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    width = max(len(row["id"]) for row in rows)
    for row in rows:
        click.echo(f"{row['id']:<{width}}  {row['severity']:<8}{row['scope']:<12} {row['title']}")
