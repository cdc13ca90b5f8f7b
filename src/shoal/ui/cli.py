"""The command line. Each verb is a module of ``ui/verbs``, loaded when it is called: ``--help`` stays fast."""

import importlib
import sys
from typing import Any

import click
from click.shell_completion import CompletionItem

from shoal import __version__
from shoal.errors import ShoalError
from shoal.ui.fail import show_error

# Verb -> what `shoal --help` says of it. The module of that name in ui/verbs has the command `verb`.
VERBS = {
    "up": "Bring a cluster up and ask its model a question.",
    "status": "Say what runs, and whether a token can be produced now.",
    "top": "Watch the cluster in the terminal.",
    "ask": "Ask the model.",
    "logs": "Show what the nodes and the engine said.",
    "explain": "Say what a log means: cause, evidence, fix.",
    "events": "Show what happened, and what was decided.",
    "bench": "Measure what the fabric carries.",
    "restart": "Restart the engine after its running requests.",
    "prove": "Prove that the traffic goes over RDMA.",
    "autopsy": "Say where every rank of a stuck engine stands.",
    "report": "Write one page about a cluster, for a ticket or a colleague.",
    "bundle": "Gather what a cluster can tell into one archive, without secrets.",
    "down": "Take the cluster down and leave nothing behind.",
    "lab": "Rehearse on one machine: hosts, a simulated engine, faults.",
    "plan": "Show what `shoal up` would do on the hosts of a cluster file.",
    "rollback": "Go back to the last release that served.",
    "init": "Look at machines, and write them down as a cluster.",
    "push-model": "Bring a model to every host of a cluster file.",
    "push-image": "Bring a container image to every host of a cluster file.",
    "doctor": "Say what is wrong on machines, and what mends it.",
    "fabric": "Say how NCCL uses the HCAs, and which settings the fabric needs.",
    "checks": "List what the doctor looks at.",
    "capture": "Write what the doctor reads to a file.",
    "fit": "Say how a model fits on GPUs, and how to split it.",
    "env": "Look at an environment file before anything reads it.",
    "exec": "Run a command on a node.",
    "firewall": "Print rules that close the nodes' ports to all others.",
    "render": "Write the container deployment of a node.",
    "dashboards": "Write Prometheus and Grafana for a cluster, with alerts.",
    "pyz": "Write shoal as one file.",
    "completion": "Print the completion script for a shell.",
    "agent": "Run this node's agent (set by the environment).",
    "serve": "Run the engine supervisor (set by the environment).",
    "health": "Say whether this node's agent, or the supervisor, answers.",
}
EXIT_CODES = """\b
Exit codes:
  0  done                     1  failed, or not ready
  2  wrong call or setting    3  a host could not be asked
  4  nothing, or one, is up   5  machine not fit: nothing was started
  6  did not come up          130  interrupted
"""


class Verbs(click.Group):
    """A group that imports a verb only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, in the order in which one meets them."""
        del ctx
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb of that name, loaded now; None where there is none."""
        del ctx
        if cmd_name not in VERBS:
            return None
        verb = importlib.import_module(f"shoal.ui.verbs.{cmd_name.replace('-', '_')}").verb
        return verb if isinstance(verb, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs on the help page, from the table: none is loaded for it."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The verbs that begin like this, without loading them."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [CompletionItem(name, help=text) for name, text in VERBS.items() if name.startswith(incomplete)]

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """The verb named in ``args``; an unknown one fails with the nearest."""
        if args and args[0] not in VERBS and not args[0].startswith("-") and not ctx.resilient_parsing:
            from shoal.spec.nearest import did_you_mean  # noqa: PLC0415 (not needed for a right word)

            raise click.UsageError(f'no verb "{args[0]}"; {did_you_mean(args[0], VERBS)}')
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; a ShoalError becomes text and exit code, here and nowhere else."""
        try:
            return super().invoke(ctx)
        except ShoalError as error:
            show_error(error)
            sys.exit(error.exit_code)


@click.command(cls=Verbs, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", "-V", message="shoal %(version)s")
def main() -> None:
    """Many GPU nodes, one endpoint: vLLM on Ray, brought up, proven and kept up."""
