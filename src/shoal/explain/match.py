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
    """Finds known lines. What a line is without its digits is remembered, where that alone decides what the line means.

    A long log says few things often: so keys are searched in new things only. No key has a digit in it.
    """

    def __init__(self) -> None:
        self._shapes: dict[int, Signature | None] = {}

    def matches(self, lines: Sequence[bytes]) -> list[Match]:
        """The known lines, in order; of several signatures that fit a line, the first of the table.

        Lines of one shape are one match, with their number, where the shape alone decides.
        """
        shapes = [hash(line.translate(None, DIGITS)) for line in lines]
        # Counting and both ends of each shape are done by the interpreter's own loops: a long log has few shapes.
        counts, last = Counter(shapes), dict(zip(shapes, range(len(shapes)), strict=True))
        first = dict(zip(reversed(shapes), range(len(shapes) - 1, -1, -1), strict=True))
        known = self._shapes
        fresh = counts.keys() - known.keys()
        indexes = [index for index, shape in enumerate(shapes) if shape in fresh] if fresh else []
        found = _candidates([lines[index] for index in indexes])
        out = []
        for at, index in enumerate(indexes):
            entries = found.get(at)
            if shapes[index] in known:
                continue
            if entries is None:
                known[shapes[index]] = None
            elif match := self._first(lines, index, shapes[index], entries):
                out.append(match)
        out += [
            Match(first[shape], signature, {}, count, last[shape])
            for shape, count in counts.items()
            if (signature := known.get(shape)) is not None
        ]
        if len(known) > MOST_SHAPES:
            known.clear()
        return sorted(out, key=lambda match: match.index)

    def _first(self, lines: Sequence[bytes], index: int, shape: int, entries: list[Entry]) -> Match | None:
        entries.sort(key=lambda entry: entry[0])
        _, signature, pattern = entries[0]
        if pattern.regex is None and signature is not OTHER:
            self._shapes[shape] = signature
            return None  # counted with all others of its shape
        return _first(lines, index, entries)


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
