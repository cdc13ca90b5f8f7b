"""``shoal logs``."""

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from shoal.errors import UsageError
from shoal.ops import local, logs, logs_hosts
from shoal.ops.events import moment
from shoal.ops.fleet.hosts import open_hosts
from shoal.ops.logs import Line, Troubles
from shoal.spec import cluster
from shoal.spec.environ import environ

COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_red", "bright_cyan", "bright_green")
FOLLOWS = ""  # what -f holds where nothing stands after it
TAIL = 1000


@dataclass(frozen=True)
class Stream:
    """What is shown: a reader, the speakers, and the seconds between two looks."""

    read: Callable[[], list[Line]]
    speakers: Sequence[str]
    pause: float


@click.command("logs")
@click.argument("node", required=False)
@click.option("-f", "--file", is_flag=False, flag_value=FOLLOWS, metavar="FILE", help="The hosts of a shoal.yaml.")
@click.option("--follow", "-F", is_flag=True, help="Go on with what is written from now on.")
@click.option("--since", metavar="TIME", help="Only lines since then: 10m, 2h, 1d, or seconds since 1970.")
@click.option("--grep", metavar="REGEX", help="Only lines in which this is found; (?i) in front: in any case.")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="Only the last N lines of each log.")
def verb(
    node: str | None, file: str | None, follow: bool, since: str | None, grep: str | None, tail: int | None
) -> None:
    """Show what was said, in the order of time: by all, or by NODE.

    NODE is one of the local cluster (head, worker-1, ...), engine, vllm, or head.ray for what Ray said. With -f it is a
    host of the file, engine, or gpu-1.engine for one program of one host; of each log the last 1000 lines are shown
    unless --tail or --since says otherwise.
    """
    if file == FOLLOWS:
        raise UsageError("-f names a cluster file", fix="shoal logs --follow   # or -F: go on with what is written")
    begin = moment(since, time.time()) if since else 0.0
    pattern = _pattern(grep or "")
    last = TAIL if tail is None and file and not since else tail
    stream = _of_hosts(Path(file), node, last) if file else _of_this_machine(node, tail)
    lines = logs.follow(stream.read, stream.pause) if follow else stream.read()
    try:
        show((line for line in lines if line.time >= begin and pattern.search(line.text)), stream.speakers, node)
    except KeyboardInterrupt:
        return


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(f"--grep {text!r} is no regular expression: {error}") from error


def _of_this_machine(node: str | None, tail: int | None) -> Stream:
    chosen = logs.choose(logs.of_folder(local.cluster_dir(environ()) / "logs", tail), node)
    return Stream(logs.together(chosen), [log.speaker for log in chosen], logs.PAUSE)


def _of_hosts(file: Path, node: str | None, tail: int | None) -> Stream:
    spec = cluster.load(file)
    hosts, troubles = open_hosts(spec), Troubles(lambda line: click.echo(line, err=True))
    containers = {host.name: logs_hosts.containers(host.role) for host in spec.hosts}
    found = logs_hosts.of_hosts(hosts, spec.cluster, containers if spec.runtime == "compose" else {}, tail, troubles)
    chosen = logs.choose(found, node)
    return Stream(logs_hosts.together(chosen, hosts, troubles), [log.speaker for log in chosen], logs_hosts.PAUSE)


def show(lines: Iterable[Line], speakers: Sequence[str], node: str | None) -> None:
    """Each line after its speaker, a colour for each node; of one log, asked for by name, the lines alone."""
    width = 0 if node and len(speakers) == 1 else max(map(len, speakers), default=0)
    colours: dict[str, str] = {}
    keep = False if environ().get("NO_COLOR") else None
    for line in lines:
        colour = colours.setdefault(line.node or line.speaker, COLOURS[len(colours) % len(COLOURS)])
        prefix = click.style(f"{line.speaker:<{width}} |", fg=colour) + " " if width else ""
        click.echo(prefix + line.text, color=keep)
