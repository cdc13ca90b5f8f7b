"""YAML as plain values, each with its line; what a setting file does not need is refused.

No aliases (a few lines of them can stand for gigabytes), no tags, no duplicate keys. Words are typed as YAML 1.2 does:
only ``true`` and ``false`` are truth values, so that a host may be called ``no``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from shoal.errors import ConfigError

Where = tuple[str | int, ...]  # keys and positions, from the root

LARGEST = 4 << 20
DEEPEST = 20
MOST = 30  # problems told at once
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml reads ten times faster, where PyYAML was built with it
NULL = {"", "~", "null", "Null", "NULL"}
TRUTH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
NUMBER = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]{1,3})?")


@dataclass
class Document:
    """A file's values, where each stands, and what is wrong so far."""

    origin: str
    data: Any = None
    lines: dict[Where, int] = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)
    untold: int = 0  # more problems, not put into words

    def line(self, where: Where) -> int:
        """The line of a value; where it is missing, that of what it should stand in."""
        while where and where not in self.lines:
            where = where[:-1]
        return self.lines.get(where, 1)

    def wrong(self, where: Where, what: str) -> None:
        """Note a problem at a place."""
        name = dotted(where)
        self.problems.append((self.line(where), f"{name}: {what}" if name else what))

    def check(self) -> None:
        """Raise ConfigError with everything that was noted, in the order of the lines."""
        if not self.problems:
            return
        told = [f"{self.origin}:{line}: {what}" for line, what in sorted(set(self.problems))]
        rest = len(told[MOST:]) + self.untold
        more = [f"and {rest} more"] if rest else []
        raise ConfigError("\n".join(told[:MOST] + more), fix=f"correct {self.origin}")


def dotted(where: Where) -> str:
    """A place as people write it: ``hosts[1].name``."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in where).removeprefix(".")


def read(path: Path) -> str:
    """A file's text.

    Raises:
        ConfigError: it cannot be read, is no text, or is too large to be a setting file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ConfigError(f"{path} has more than {LARGEST >> 20} MiB", fix="name the file that holds the settings")
        return data.decode()
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: not UTF-8", fix="save the file as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}", why=error.strerror or str(error), fix=f"ls -l {path}") from error


def parse(text: str, origin: str) -> Document:
    """The one document in ``text``; duplicate keys, aliases and tags are noted as problems.

    Raises:
        ConfigError: it is not YAML, or nested too deeply to be a setting file.
    """
    document = Document(origin)
    try:
        _Builder(document, yaml.parse(text, Loader=LOADER)).build()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ConfigError(f"{origin}:{line}: {_why(error, text, line)}", fix=f"correct {origin}") from error
    except yaml.YAMLError as error:
        why = " ".join(str(error).split())
        raise ConfigError(f"{origin} is not YAML", why=why, fix=f"correct {origin}") from error
    return document


def _why(error: yaml.MarkedYAMLError, text: str, line: int) -> str:
    lines = text.splitlines()
    written = lines[line - 1] if line <= len(lines) else ""
    if "\t" in written[: len(written) - len(written.lstrip())] or "'\\t'" in str(error.problem):
        return "a tab at the beginning of the line: YAML indents with spaces"
    return f"not YAML: {error.problem or error.context}"


class _Builder:
    """Values out of events; depth and size are bounded before anything grows."""

    def __init__(self, document: Document, events: Iterator[Any]) -> None:
        self._document = document
        self._events = events

    def build(self) -> None:
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._problem(event, "a second document begins here: expected one")
                    return
                self._document.data = self._value(next(self._events), (), 0)

    def _problem(self, event: Any, what: str, where: Where = ()) -> None:
        name = f"{dotted(where)}: " if where else ""
        self._document.problems.append((_line(event), name + what))

    def _value(self, event: Any, where: Where, depth: int) -> Any:
        line = _line(event)
        self._document.lines.setdefault(where, line)
        if depth > DEEPEST:
            raise ConfigError(f"{self._document.origin}:{line}: nested more than {DEEPEST} levels deep")
        if isinstance(event, yaml.AliasEvent):
            self._problem(event, f"*{event.anchor}: aliases are not read; write the value out", where)
            return None
        if event.tag not in {None, "!"}:
            self._problem(event, f"the tag {event.tag} is not read; write the plain value", where)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(where, depth)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(where, depth)
        return _scalar(event.value) if event.implicit[0] else event.value

    def _sequence(self, where: Where, depth: int) -> list[Any]:
        out: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            out.append(self._value(event, (*where, len(out)), depth + 1))
        return out

    def _mapping(self, where: Where, depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                self._problem(event, "expected a plain word as the key", where)
                self._value(event, where, depth + 1)
                self._value(next(self._events), where, depth + 1)
                continue
            inner = (*where, event.value)
            if event.value in out:
                self._problem(event, f"it stands twice, first in line {self._document.line(inner)}", inner)
            self._document.lines.setdefault(inner, _line(event))
            value = self._value(next(self._events), inner, depth + 1)
            out.setdefault(event.value, value)
        return out


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _scalar(word: str) -> Any:
    """A plain word: nothing, a truth value, a number, or text."""
    if word in NULL:
        return None
    if word in TRUTH:
        return TRUTH[word]
    if INTEGER.fullmatch(word):
        return int(word)
    return float(word) if NUMBER.fullmatch(word) else word
