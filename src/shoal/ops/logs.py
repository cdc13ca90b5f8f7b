"""The logs of a cluster as one stream, in the order of time, with the name of the speaker."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar

from shoal.errors import NotRunning, ShoalError, UsageError
from shoal.facts.parse.log_time import moments
from shoal.host.base import text
from shoal.spec.nearest import did_you_mean

PAUSE = 0.3  # seconds between two looks at this machine's logs
Note = Callable[[str], None]


@dataclass(frozen=True)
class Line:
    """One line, who said it, on which node, and when: seconds since the epoch."""

    speaker: str
    text: str
    time: float = 0.0
    node: str = ""


class Log(Protocol):
    """A log that is read bit by bit. It remembers how far it was read."""

    @property
    def speaker(self) -> str:
        """Who writes it: a node's name, and after a dot the program's where it is not the agent."""
        ...

    @property
    def node(self) -> str:
        """The host that it lies on; empty for this machine."""
        ...

    def read(self) -> list[Line]:
        """Whole lines that were written since the last time."""
        ...


L = TypeVar("L", bound=Log)


class FileLog:
    """A log file of this machine."""

    node = ""

    def __init__(self, speaker: str, path: Path, tail: int | None = None) -> None:
        self.speaker = speaker
        self._path, self._tail = path, tail
        self._position = 0

    def read(self) -> list[Line]:
        """Whole lines beyond what was read; none where the file is gone. One that was cut is read anew."""
        try:
            with self._path.open("rb") as file:
                end = self._path.stat()
                file.seek(self._position if self._position <= end.st_size else 0)
                self._position = file.tell()
                data = file.read()
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._position += len(whole)
        lines = said(self.speaker, text(whole), end.st_mtime, float(time.localtime(end.st_mtime).tm_gmtoff))
        last, self._tail = self._tail, None
        return lines if last is None else lines[max(0, len(lines) - last) :]


def said(speaker: str, data: str, end: float, zone: float, node: str = "") -> list[Line]:
    """The lines of a log that ended at that moment."""
    lines = data.splitlines()
    return [Line(speaker, line, at, node) for line, at in zip(lines, moments(lines, end, zone), strict=True)]


def of_folder(folder: Path, tail: int | None = None) -> tuple[FileLog, ...]:
    """The local cluster's logs: head, worker-1, ..., engine, vllm, and Ray's own (``head.ray``)."""
    return tuple(FileLog(path.name.removesuffix(".log"), path, tail) for path in sorted(folder.glob("*.log")))


def choose(logs: Sequence[L], wanted: str | None) -> list[L]:
    """The logs to show: all but Ray's own chatter; of one speaker; of one node with what it runs; of one program.

    Raises:
        NotRunning: there are none.
        UsageError: nobody of that name has one.
    """
    if not logs:
        raise NotRunning("there are no logs: no cluster was up here yet", fix="shoal up --local")
    if wanted is None:
        return [log for log in logs if not log.speaker.endswith(".ray")]
    found = [log for log in logs if log.speaker == wanted]
    quiet = [log for log in logs if not log.speaker.endswith(".ray")]
    if not found or found[0].node == wanted:
        found = [log for log in quiet if wanted in {log.node, log.speaker.removeprefix(f"{log.node}.")}]
    if not found:
        raise UsageError(f'no log of "{wanted}"', why=did_you_mean(wanted, [log.speaker for log in logs]))
    return found


def merged(answers: Sequence[Sequence[Line]]) -> list[Line]:
    """Lines of several logs in the order of time; those of one log stay in their own order."""
    risen = (line for lines in answers for line in _rising(lines))
    return sorted(risen, key=lambda line: line.time)


def _rising(lines: Sequence[Line]) -> Iterator[Line]:
    """A log's lines with times that never fall: two writers of one log may be a moment apart."""
    latest = 0.0
    for line in lines:
        latest = max(latest, line.time)
        yield replace(line, time=latest)


def follow(read: Callable[[], list[Line]], pause: float) -> Iterator[Line]:
    """Lines as they are written, for ever: the reader ends it."""
    while True:
        yield from read()
        time.sleep(pause)


def together(logs: Sequence[Log]) -> Callable[[], list[Line]]:
    """A reader of several logs of this machine."""
    return lambda: merged([log.read() for log in logs])


@dataclass
class Troubles:
    """Which hosts cannot be read just now: told once each, and once when they can be again."""

    note: Note
    silent: set[str] = field(default_factory=set)

    def heard(self, name: str, error: ShoalError | None) -> None:
        """A host was read, or was not."""
        if error is not None and name not in self.silent:
            self.silent.add(name)
            self.note(f"{name} is not read: {error.what}" + (f": {error.why}" if error.why else ""))
        elif error is None and name in self.silent:
            self.silent.discard(name)
            self.note(f"{name} is read again")
