"""The logs of the local cluster, one stream with the name of the speaker."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shoal.errors import NotRunning, UsageError
from shoal.spec.nearest import did_you_mean


@dataclass(frozen=True)
class Line:
    """One line and who said it."""

    speaker: str
    text: str


def speakers(folder: Path) -> tuple[str, ...]:
    """Who has a log: head, worker-1, ..., engine, vllm, and Ray's own (``head.ray``)."""
    return tuple(sorted(path.name.removesuffix(".log") for path in folder.glob("*.log")))


def choose(folder: Path, wanted: str | None) -> tuple[str, ...]:
    """The logs to show: the one asked for, or all but Ray's own chatter.

    Raises:
        NotRunning: there are none.
        UsageError: nobody of that name has one.
    """
    known = speakers(folder)
    if not known:
        raise NotRunning("there are no logs: no cluster was up here yet", fix="shoal up --local")
    if wanted is None:
        return tuple(name for name in known if not name.endswith(".ray"))
    if wanted not in known:
        raise UsageError(f'no log of "{wanted}"', why=did_you_mean(wanted, known))
    return (wanted,)


def read(folder: Path, names: tuple[str, ...], positions: dict[str, int]) -> Iterator[Line]:
    """Whole lines beyond ``positions`` (bytes by name), which are moved on."""
    for name in names:
        data = _since(folder / f"{name}.log", positions.get(name, 0))
        end = data.rfind(b"\n") + 1
        positions[name] = positions.get(name, 0) + end
        for text in data[:end].decode("utf-8", errors="replace").splitlines():
            yield Line(name, text)


def _since(path: Path, position: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(position)
            return file.read()
    except OSError:
        return b""


def follow(folder: Path, names: tuple[str, ...], positions: dict[str, int]) -> Iterator[Line]:
    """Lines as they are written, for ever: the reader ends it."""
    while True:
        yield from read(folder, names, positions)
        time.sleep(0.3)
