"""``shoal dashboards``."""

from pathlib import Path

import click

from shoal.ops import dashboards, render
from shoal.spec.environ import environ
from shoal.ui.overwrite import agree


@click.command("dashboards")
@click.argument("addresses", nargs=-1, metavar="[ADDRESS]...")
@click.option("-f", "--file", type=click.Path(path_type=Path), help="A shoal.yaml. Default: the one in this folder.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("dashboards"),
    show_default=True,
    metavar="DIR",
    help="The folder.",
)
@click.option("--yes", "-y", is_flag=True, help="Overwrite without asking.")
def verb(addresses: tuple[str, ...], file: Path | None, output: Path, yes: bool) -> None:
    """Write Prometheus and Grafana for a cluster: a compose file, three dashboards, and alert rules.

    Scraped are the nodes at the ADDRESSes, the head's first; else those of a shoal.yaml; else the cluster that is up
    here.
    What it would overwrite is shown first. The file .env and Grafana's password are made once, and then yours.
    """
    scraped = dashboards.targets(file, addresses, environ())
    planned = dashboards.changes(scraped, output)
    if (text := render.diff(planned)) and not yes:
        agree(text, output)
    render.write(planned)
    made = dashboards.write_own(scraped, output)
    click.echo("\n".join(f"wrote {path}" for path in (*(one.path for one in planned), *made)) or "all is there already")
    if not scraped.key_file:
        click.echo(f"put the API key into {output}/key/api.key, or name its file in {output}/.env")
    click.echo(
        f"next, in {output}: docker compose up -d, then http://127.0.0.1:3000 as admin, password in grafana.password"
    )
