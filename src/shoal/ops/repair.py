"""Mending and undoing: each repair through its host, remembered in a journal before anything is changed."""

import time
from collections.abc import Sequence
from pathlib import Path

from shoal.checks import fixes
from shoal.checks.fixes import Repair, Step
from shoal.errors import CommandFailed, PreconditionFailed
from shoal.host.base import Host
from shoal.state.journal import Entry, Journal, journal_file, read

NAME = "doctor"
FIXED, UNDONE = "fixed", "undone"
TIMEOUT = 30.0


class Memory:
    """What was mended and not undone, kept in the state folder."""

    def __init__(self, state: Path) -> None:
        self._path = journal_file(state, NAME)
        self._failed = ""
        self._journal = Journal(self._path, NAME, self._complain)

    def _complain(self, words: str) -> None:
        self._failed = words

    def remember(self, kind: str, repair: Repair) -> None:
        """Write it down.

        Raises:
            PreconditionFailed: it cannot be written: then nothing is changed that nobody could undo.
        """
        words = f"{repair.check} on {repair.node}: " + "; ".join(str(step) for step in repair.steps)
        self._journal.append(Entry(time.time(), repair.node, kind, words, data=repair.as_dict()))
        if self._failed:
            raise PreconditionFailed("nothing was changed", why=self._failed, fix=f"df -h {self._path.parent}")

    def undoable(self) -> tuple[Repair, ...]:
        """The last first, each once."""
        open_: dict[tuple[str, str], Repair] = {}
        for entry in read(self._path):
            repair = fixes.parse(entry.data)
            if repair and entry.kind == FIXED:
                # What stood there before the first of several repairs is what undo goes back to.
                open_.setdefault((repair.node, repair.check), repair)
            elif repair and entry.kind == UNDONE:
                open_.pop((repair.node, repair.check), None)
        return tuple(reversed(open_.values()))


def apply(repair: Repair, host: Host, memory: Memory) -> None:
    """Do it; where a step fails, what was done is put back.

    Raises:
        HostError: a step failed.
    """
    prefix = _root(host)
    memory.remember(FIXED, repair)
    try:
        _run(host, prefix, repair.steps)
    except CommandFailed:
        put_back(repair, host, memory)
        raise


def put_back(repair: Repair, host: Host, memory: Memory) -> None:
    """Undo it. A step that has nothing to undo any more keeps none of the others.

    Raises:
        CommandFailed: a step failed; the repair stays on the list.
    """
    prefix = _root(host)
    failed = []
    for step in repair.undo:
        try:
            _run(host, prefix, (step,))
        except CommandFailed as error:
            failed.append(error)
    if failed:
        raise failed[0]
    memory.remember(UNDONE, repair)


def _run(host: Host, prefix: Sequence[str], steps: Sequence[Step]) -> None:
    for step in steps:
        host.run((*prefix, *step.argv), timeout=TIMEOUT, input=step.text or None)


def _root(host: Host) -> tuple[str, ...]:
    """What makes a command root's: nothing for root, sudo that asks nothing for others."""
    own = host.run(("id", "-u"), timeout=TIMEOUT).out.strip()
    if own == "0":
        return ()
    if host.run(("sudo", "-n", "true"), timeout=TIMEOUT, ok=range(256)).code == 0:
        return ("sudo", "-n")
    what = f"{host.name}: mending needs root, and sudo asks for a password"
    raise PreconditionFailed(what, why="nothing was changed", fix="run it as root, or type the fixes by hand")
