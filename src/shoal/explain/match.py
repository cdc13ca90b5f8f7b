"""Which lines of a batch are known, and what they mean. Fast where nothing is: one search a literal, over all lines."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from shoal.explain.errors import error_sentence
from shoal.explain.signature import Pattern, Signature
from shoal.explain.table import LINES, OTHER

Entry = tuple[int, Signature, Pattern]
DIGITS = b"0123456789"
MOST_SHAPES = 50_000


@dataclass(frozen=True)
class Match:
    """A known line, by its index in the batch."""

    index: int
    signature: Signature
    groups: dict[str, str]
    count: int = 1
    last: int = 0  # index of the last line that is meant


def _by_key() -> dict[bytes, list[Entry]]:
    keys: dict[bytes, list[Entry]] = {}
    for order, signature in enumerate(LINES):
        for pattern in signature.patterns:
            keys.setdefault(pattern.key, []).append((order, signature, pattern))
    return keys


KEYS = _by_key()


class Matcher:
    """Finds known lines. What a line is without its digits is its shape, and keys are searched once for each shape.

    A long log says few things often, and no key has a digit in it: lines of one shape have the same keys.
    """

    def __init__(self) -> None:
        self._known: dict[int, Signature | None] = {}  # shapes that decide alone
        self._open: dict[int, list[Entry]] = {}  # shapes of which each line must be looked at

    def matches(self, lines: Sequence[bytes]) -> list[Match]:
        """The known lines, in order; of several signatures that fit a line, the first of the table.

        Lines of one shape are one match, with their number, where the shape alone decides.
        """
        if len(self._known) + len(self._open) > MOST_SHAPES:
            self._known.clear()
            self._open.clear()
        shapes = [hash(line.translate(None, DIGITS)) for line in lines]
        # Counting and both ends of each shape are done by the interpreter's own loops.
        counts, last = Counter(shapes), dict(zip(shapes, range(len(shapes)), strict=True))
        first = dict(zip(reversed(shapes), range(len(shapes) - 1, -1, -1), strict=True))
        self._learn(
            {shape: lines[first[shape]] for shape in counts if not (shape in self._known or shape in self._open)}
        )
        known, still_open = self._known, counts.keys() & self._open.keys()
        out = [
            Match(first[shape], signature, {}, count, last[shape])
            for shape, count in counts.items()
            if (signature := known.get(shape)) is not None
        ]
        each = [index for index, shape in enumerate(shapes) if shape in still_open] if still_open else []
        found = (_first(lines, index, self._open[shapes[index]]) for index in each)
        out += [match for match in found if match]
        return sorted(out, key=lambda match: match.index)

    def _learn(self, fresh: dict[int, bytes]) -> None:
        """What shapes mean, by a line of each."""
        found = _candidates(list(fresh.values()))
        for at, shape in enumerate(fresh):
            entries = sorted(found.get(at, ()), key=lambda entry: entry[0])
            if entries and (entries[0][2].regex is not None or entries[0][1] is OTHER):
                self._open[shape] = entries
            else:
                self._known[shape] = entries[0][1] if entries else None


def _candidates(lines: Sequence[bytes]) -> dict[int, list[Entry]]:
    """By index: what a line may be, because it has a key of it."""
    text = b"\n".join(lines)
    ends = list(accumulate(len(line) + 1 for line in lines))
    found: dict[int, list[Entry]] = {}
    for key, entries in KEYS.items():
        at = text.find(key)
        while at >= 0:
            index = bisect_right(ends, at)
            found.setdefault(index, []).extend(entries)
            at = text.find(key, ends[index])
    return found


def _first(lines: Sequence[bytes], index: int, entries: list[Entry]) -> Match | None:
    for _, signature, pattern in entries:
        if signature is OTHER:
            near = [line[:4000].decode("utf-8", errors="replace") for line in lines[index : index + 4]]
            told = error_sentence(near, 0)
            if told:
                return Match(index, signature, {"told": told}, last=index)
            continue
        groups = pattern.search(lines[index])
        if groups is not None:
            return Match(index, signature, groups, last=index)
    return None
