"""Which lines of a batch are known, and what they mean. Fast where nothing is: one search a literal, over all lines."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
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

    def matches(self, lines: Sequence[bytes]) -> Iterator[Match]:
        """The known lines, in order; of several signatures that fit a line, the first of the table."""
        shapes = [hash(line.translate(None, DIGITS)) for line in lines]
        known = self._shapes
        fresh = [index for index, shape in enumerate(shapes) if shape not in known]
        out = [
            Match(index, signature, {})
            for index, shape in enumerate(shapes)
            if (signature := known.get(shape)) is not None
        ]
        found = _candidates([lines[index] for index in fresh])
        if len(known) > MOST_SHAPES:
            known.clear()
        for at, index in enumerate(fresh):
            entries = found.get(at)
            if entries is None:
                known[shapes[index]] = None
            elif match := self._first(lines, index, shapes[index], entries):
                out.append(match)
        yield from sorted(out, key=lambda match: match.index)

    def _first(self, lines: Sequence[bytes], index: int, shape: int, entries: list[Entry]) -> Match | None:
        entries.sort(key=lambda entry: entry[0])
        _, signature, pattern = entries[0]
        if pattern.regex is None and signature is not OTHER:
            self._shapes[shape] = signature
            return Match(index, signature, {})
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
                return Match(index, signature, {"told": told})
            continue
        groups = pattern.search(lines[index])
        if groups is not None:
            return Match(index, signature, groups)
    return None
