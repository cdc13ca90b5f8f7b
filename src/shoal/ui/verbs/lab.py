"""``shoal lab``."""

import secrets
import sys
import time

import click
from rich.console import Console

from shoal.errors import UsageError
from shoal.lab import cluster, faults, soak
from shoal.lab.plan import Wish
from shoal.lab.processes import ROLES
from shoal.lab.record import EngineKind, Kind
from shoal.spec.environ import environ
from shoal.state.status import ClusterState, ClusterStatus
from shoal.ui.observers import table

# One line for each fault and the roles, on the page of `shoal lab fault --help`.
FAULT_PAGE = "\n".join(
    [
        "\b",
        "Faults:",
        *(f"  {fault.name:<12} {fault.meaning}" for fault in faults.FAULTS.values()),
        f"Roles: {', '.join(ROLES)}",
    ]
)
WORDS = {"sim": "simulated, no model", "vllm": "vLLM on CPU"}


@click.group("lab")
def verb() -> None:
    """Rehearse on one machine: hosts, a simulated engine, faults.

    Namespace hosts (root) have an address, hostname, process tree, /dev/shm, /tmp/ray and disk of their own; loopback
    hosts need no root. On both run the real agent, the real Ray and the real supervisor.
    """


@verb.command("up")
@click.option("-n", "count", default=2, show_default=True, metavar="N", help="How many hosts; n1 is the head.")
@click.option("--hosts", "kind", type=click.Choice(["namespace", "loopback"]), default="namespace", show_default=True)
@click.option("--engine", type=click.Choice(["sim", "vllm"]), default="sim", show_default=True)
@click.option("--subnet", default="192.168.100", show_default=True, help="First three bytes of the hosts' addresses.")
@click.option("--port", default=8000, show_default=True, help="Port of the API.")
@click.option("--agent-port", default=8700, show_default=True, help="Port of the agents.")
@click.option("--port-base", default=27000, show_default=True, help="First port of Ray's.")
@click.option("--load-seconds", default=0.2, show_default=True, help="How long the simulated engine loads.")
@click.option("--clock", is_flag=True, help="Wall clocks of agents and supervisor can jump.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A variable of agents and supervisor.")
@click.option("--wait", default=120.0, show_default=True, metavar="S", help="Seconds to wait until it is ready.")
def up(
    count: int,
    kind: Kind,
    engine: EngineKind,
    subnet: str,
    port: int,
    agent_port: int,
    port_base: int,
    load_seconds: float,
    clock: bool,
    settings: tuple[str, ...],
    wait: float,
) -> None:
    """Make the hosts, start agents and supervisor, and wait for a token."""
    pairs = dict(_pair(word) for word in settings)
    wish = Wish(count, kind, engine, subnet, port_base, port, agent_port, load_seconds, clock, pairs)
    lab = cluster.up(wish, environ(), click.echo)
    _show(lab, cluster.wait_ready(lab, wait))


def _pair(word: str) -> tuple[str, str]:
    name, sign, value = word.partition("=")
    if not (name and sign):
        raise UsageError(f"--set {word}: expected NAME=VALUE", fix="shoal lab up --set SHOAL_LOST_AFTER=5")
    return name, value


@verb.command("run", context_settings={"ignore_unknown_options": True})
@click.argument("host")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(host: str, command: tuple[str, ...]) -> None:
    """Run a command on a host of the lab; its exit code is the command's."""
    sys.exit(cluster.run(cluster.current(environ()), host, command, click.echo))


@verb.command("status")
@click.option("--json", "as_json", is_flag=True, help="The document of docs/reference/status.md.")
def status(as_json: bool) -> None:
    """Say what runs in the lab; exit code 0 while a token can be produced."""
    lab = cluster.current(environ())
    now = cluster.status(lab)
    if as_json:
        click.echo(now.model_dump_json(indent=2))
    else:
        _show(lab, now)
    sys.exit(0 if now.state is ClusterState.READY else 1)


@verb.command("fault", epilog=FAULT_PAGE)
@click.argument("name")
@click.argument("target", default="")
@click.option("--for", "seconds", type=float, metavar="S", help="Undo it after so many seconds.")
@click.option("--undo", "over", is_flag=True, help="Undo one that lasts.")
def fault(name: str, target: str, seconds: float | None, over: bool) -> None:
    """Let a fault happen to a host, or to a role on a host: raylet@n2.

    One that lasts stays until --undo, the end of --for, or `shoal lab down`.
    """
    lab, kind = cluster.current(environ()), faults.find_fault(name)
    struck = faults.read_target(lab, kind, target)
    if not over:
        lab, words = faults.strike(lab, kind, struck)
        click.echo(words)
    if over or (kind.lasts and seconds is not None):
        time.sleep(0 if over else seconds or 0)
        lab = cluster.current(environ())
        click.echo(faults.undo(lab, faults.lasting(lab, kind, struck))[1])


@verb.command("soak")
@click.option("--minutes", default=30.0, show_default=True, help="How long.")
@click.option("--seed", type=int, metavar="N", help="The same seed gives the same faults; default: any.")
def soaked(minutes: float, seed: int | None) -> None:
    """Strike the lab at random while a client sends requests; exit code 1 where something was not as it should be.

    The simulated engine's answers follow from the request, so a wrong one, or one given twice, is noticed.
    """
    chosen = secrets.randbelow(1_000_000) if seed is None else seed
    click.echo(f"seed {chosen}")
    report = soak.soak(environ(), minutes, chosen, click.echo)
    click.echo(report.to_json())
    sys.exit(0 if report.good else 1)


@verb.command("down")
def down() -> None:
    """Take the lab down; nothing is left but its logs."""
    for line in cluster.down(environ()) or ["no lab is up"]:
        click.echo(line)


def _show(lab: cluster.Lab, now: ClusterStatus) -> None:
    console = Console()
    console.print(f"lab: [bold]{now.state.value}[/], {lab.record.kind} hosts", highlight=False)
    console.print(table(now))
    lines = [f"engine    {WORDS[lab.record.engine]}", f"endpoint  {now.endpoint}", f"API key   {now.api_key_file}"]
    lines += [f"fault     {fault.fault} {fault.role}@{fault.host}" for fault in lab.record.faults]
    lines.append(f"logs      {lab.folder / 'logs'}")
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
