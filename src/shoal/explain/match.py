"""Which lines of a batch are known, and what they mean. Fast where nothing is: one search a literal, over all lines."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from shoal.explain.errors import error_sentence
from shoal.explain.signature import Pattern, Signature
from shoal.explain.table import LINES, OTHER

Entry = tuple[int, Signature, Pattern]


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


def matches(lines: Sequence[bytes]) -> Iterator[Match]:
    """The known lines, in order; of several signatures that fit a line, the first of the table."""
    text = b"\n".join(lines)
    ends = list(accumulate(len(line) + 1 for line in lines))
    found: dict[int, list[Entry]] = {}
    for key, entries in KEYS.items():
        at = text.find(key)
        while at >= 0:
            index = bisect_right(ends, at)
            found.setdefault(index, []).extend(entries)
            at = text.find(key, ends[index])
    for index in sorted(found):
        if match := _first(lines, index, found[index]):
            yield match


def _first(lines: Sequence[bytes], index: int, entries: list[Entry]) -> Match | None:
    for _, signature, pattern in sorted(entries, key=lambda entry: entry[0]):
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
