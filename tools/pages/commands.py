"""The pages of the command line: the help of every verb, and the exit codes."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from click import Group
from click.testing import CliRunner

from pages.markdown import code, page, table
from shoal import errors
from shoal.errors import ShoalError
from shoal.ui.cli import VERBS
from shoal.ui.cli import main as cli

WIDTH = 78  # what click takes of a terminal of 80 columns


@contextmanager
def called_as(*argv: str) -> Iterator[None]:
    """The program's arguments, which the command line looks at to tell its help page from others."""
    before, sys.argv = sys.argv, list(argv)
    try:
        yield
    finally:
        sys.argv = before


def help_of(*argv: str) -> str:
    """What ``shoal ARGV --help`` prints in 80 columns."""
    with called_as("shoal", *argv, "--help"):
        done = CliRunner().invoke(cli, [*argv, "--help"], prog_name="shoal", terminal_width=WIDTH)
    if done.exit_code:
        raise RuntimeError(f"shoal {' '.join(argv)} --help: {done.output}")
    return "\n".join(line.rstrip() for line in done.output.splitlines())


def cli_page() -> str:
    """The help of every verb."""
    verbs = (f"## shoal {' '.join(words)}\n\n```text\n{help_of(*words)}\n```\n" for words in all_verbs())
    about = "What `shoal --help` and `shoal VERB --help` print. Exit codes: [exit-codes.md](exit-codes.md).\n"
    return page("Command line", about, f"```text\n{help_of()}\n```\n", *verbs)


def all_verbs() -> Iterator[tuple[str, ...]]:
    """Every verb, and after it those below it."""
    for verb in VERBS:
        yield (verb,)
        command = import_module(f"shoal.ui.verbs.{verb.replace('-', '_')}").verb
        if isinstance(command, Group):
            yield from ((verb, name) for name in command.commands)


def family() -> list[type[ShoalError]]:
    """The error family, by exit code, parents before children."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ShoalError)]
    return sorted(kinds, key=lambda kind: (kind.exit_code, len(kind.__mro__)))


def exit_codes() -> str:
    """Exit codes, from the error family."""
    return page(
        "Exit codes",
        "Every error says what happened, why, and the command that mends it, on standard error. "
        "With `shoal up --json` the same\ncomes as one line on standard output too: "
        '`{"event": "error", "what": ..., "why": ..., "fix": ..., "exit_code": ...}`.\n',
        table(
            ("code", "error", "meaning"),
            (
                (str(kind.exit_code), code(kind.__name__), (kind.__doc__ or "").strip().splitlines()[0])
                for kind in family()
            ),
        ),
        "## Codes that are no errors of this family\n",
        table(
            ("code", "of", "meaning"),
            (
                ("0", "every verb", "Done. `shoal down` gives 0 where nothing was up, too."),
                ("0", code("shoal up"), "The attached cluster was ended by Ctrl-C after it had been ready."),
                ("1", code("shoal env check"), "Something in the file is wrong."),
                ("1", code("shoal explain"), "Something wrong was found. 2: a file cannot be read."),
                ("1", code("shoal prove"), "It is not proven that the traffic goes over RDMA."),
                ("1", "`shoal bench fabric`, `shoal bench rdma`", "What was measured is too slow, or a way fails."),
                ("1", code("shoal fit"), "The model does not fit."),
                (
                    "1",
                    "`shoal lab status`, `shoal lab soak`",
                    "No token can be produced; something was not as it should be.",
                ),
                ("1", code("shoal doctor"), "A check fails."),
                ("3", code("shoal doctor"), "A host could not be asked: it is named, and the others are judged."),
                (
                    "3",
                    "`shoal fabric`, `shoal bundle`",
                    "A host could not be asked: it is named, and the others are told of.",
                ),
                (
                    "3, 5",
                    "`shoal push-model`, `shoal push-image`",
                    "A host is lost, or its disk is full: it is named, and the others have what was pushed.",
                ),
                (
                    "any",
                    "`shoal exec`, `shoal lab run`",
                    "The command's own; `shoal exec`: 128 + n where signal n ended it.",
                ),
                ("1", code("shoal status"), "Something is up, and it is not ready."),
                ("3", code("shoal status -f FILE"), "No host can be asked."),
                ("1", code("shoal render"), "Files would be overwritten, and nobody agreed: nothing was written."),
                ("1", code("shoal health"), "The program does not answer, or says no."),
                ("2", "every verb", "An unknown verb, option or value."),
                ("4", code("shoal status"), "Nothing is up."),
                ("78", "`shoal agent`, `shoal serve`", "A setting is wrong. Do not restart it: nothing would change."),
                (
                    "130",
                    code("shoal up"),
                    "Interrupted before it was ready. With `--local`, all that was started was taken down.",
                ),
                ("130", "`shoal down`, `shoal push-model`, `shoal push-image`", "Interrupted. The same call goes on."),
            ),
        ),
    )
