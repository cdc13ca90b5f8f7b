"""``shoal top``."""

import asyncio
from pathlib import Path

import click

from shoal.errors import UsageError
from shoal.ops import local
from shoal.ops.ask import require
from shoal.ops.fleet.live import live_reader
from shoal.ops.live import LiveSource, look_once
from shoal.spec.environ import environ
from shoal.state.live import ClusterLive

FAR_EVERY = 2.0  # seconds between two looks through ssh


@click.command("top")
@click.option("-f", "--file", type=click.Path(path_type=Path), help="A shoal.yaml. Default: the local cluster.")
@click.option("--agent", metavar="URL", help="The head's agent, such as http://192.168.100.1:8700.")
@click.option("--key-file", metavar="FILE", help="The API key's file, for --agent.")
@click.option("--json", "as_json", is_flag=True, help="Print the document of docs/reference/live.md once.")
def verb(file: Path | None, agent: str | None, key_file: str | None, as_json: bool) -> None:
    """Watch nodes, rails, engine, findings and events, live.

    Keys: n, r, f and e choose what is shown, q ends it.
    """
    if (agent is None) is not (key_file is None) or (agent and file):
        raise UsageError("--agent and --key-file belong together, and -f stands alone")
    if file is not None:
        _far(file, as_json=as_json)
        return
    if agent is None or key_file is None:
        run = require(local.running(environ()))
        agent, key_file = run.nodes[0].agent_url, run.api_key_file
    if as_json:
        _print(asyncio.run(look_once(agent, key_file)))
    else:
        asyncio.run(_watch(agent, key_file))


def _print(live: ClusterLive) -> None:
    click.echo(live.model_dump_json(indent=2))


async def _watch(agent: str, key_file: str) -> None:
    from shoal.ui.top.app import Top  # noqa: PLC0415 (Textual takes a third of a second to load)

    async with LiveSource(agent, key_file) as source:
        await Top(source.look).run_async()


def _far(file: Path, *, as_json: bool) -> None:
    read = live_reader(file)
    if as_json:
        _print(read())
        return
    from shoal.ui.top.app import Top  # noqa: PLC0415 (as above)

    async def look() -> ClusterLive:
        return await asyncio.to_thread(read)

    Top(look, FAR_EVERY).run()
