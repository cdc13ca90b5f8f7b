"""What one source of lines tells: its processes, and the first and last line of each signature. Constant memory."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from shoal.explain.match import Match, Matcher
from shoal.explain.signature import Role, Signature
from shoal.nccl.log import NcclReader, shown

WRAPPED = (b'{"log":', b'{"log" :')
LONGEST = 16384  # bytes of one line; what is longer is read as several
BACK = 60  # lines to look back for a time
PROCESS = re.compile(rb"([\w.\-]+):(\d+):\d+ \[-?\d+\] ")
RANK = re.compile(rb"\[rank(\d+)\]|\bRank (\d+)\]")
ACTOR = re.compile(rb"\((\w*) ?pid=(\d+)(?:, ip=([\w.:]+))?\)")
TIMES = (
    (re.compile(rb"\b\d{4}-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d+))?Z"), "utc"),
    (re.compile(rb"\b\d{4}-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d+))?"), "local"),
    (re.compile(rb"\b(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)()\b"), "local"),
    (re.compile(rb"\b[IWEFC](\d\d)(\d\d) (\d\d):(\d\d):(\d\d)\.(\d+)"), "local"),
)


@dataclass(frozen=True)
class When:
    """A moment of a line: seconds in a year, and of which clock."""

    clock: str
    second: float


@dataclass
class Hit:
    """A known line: where it stood first, what it named, how often it came and where it came last."""

    signature: Signature
    source: str
    line: int
    text: str
    groups: dict[str, str] = field(default_factory=dict)
    speaker: str = ""
    when: When | None = None
    count: int = 1
    last: int = 0


class Story:
    """Reads one source. Feed it lines, then look at ``hits`` and ``ranks``."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.reader = NcclReader(source)
        self.hits: dict[str, Hit] = {}
        self._matcher = Matcher()
        self.lines = 0

    def read(self, chunks: Iterable[bytes]) -> None:
        """All of a source, in pieces of any size."""
        carry, begun = b"", False
        for chunk in chunks:
            lines = (carry + chunk).split(b"\n")
            carry = lines.pop()
            begun = begun and not lines
            self.feed(lines)
            if len(carry) > LONGEST:  # a line without end: read what is there, under the same number
                self.feed([carry])
                self.lines -= 1
                carry, begun = b"", True
        if carry or begun:
            self.feed([carry])

    def feed(self, lines: Sequence[bytes]) -> list[Hit]:
        """Take lines in, whole ones; gives the hits that are new."""
        begin = self.lines + 1
        self.lines += len(lines)
        if lines and lines[0].startswith(WRAPPED):
            lines = [_unwrapped(line) for line in lines]
        if max(map(len, lines), default=0) > LONGEST or any(b"\r" in line for line in lines):
            feed = self.reader.feed
            parts = ((number, part) for number, line in enumerate(lines, begin) for part in _parts(line))
            rest = [(number, part) for number, part in parts if not feed(part, number)]
        else:
            rest = self.reader.feed_all(lines, begin)
        return [hit for match in self._matcher.matches([line for _, line in rest]) if (hit := self._take(match, rest))]

    def _take(self, match: Match, rest: list[tuple[int, bytes]]) -> Hit | None:
        """Count a match; the hit where it is the first of its signature."""
        number, line = rest[match.index]
        last = rest[match.last][0]
        known = self.hits.get(match.signature.id)
        if known:
            known.count, known.last = known.count + match.count, max(known.last, last)
            return None
        hit = Hit(match.signature, self.source, number, shown(line), match.groups, speaker(line))
        hit.count, hit.last = match.count, last
        hit.when = _when([before for _, before in rest[max(match.index - BACK, 0) : match.index + 1]])
        self.hits[hit.signature.id] = hit
        return hit

    def last(self, role: Role) -> int:
        """The number of the last line of this role; 0 where there is none."""
        return max((hit.last for hit in self.hits.values() if hit.signature.role is role), default=0)

    def first(self, role: Role) -> int:
        """The number of the first line of this role; beyond all where there is none."""
        return min((hit.line for hit in self.hits.values() if hit.signature.role is role), default=self.lines + 1)


def _unwrapped(line: bytes) -> bytes:
    """What a container printed, out of Docker's own log file: a JSON object a line. The time stands in front."""
    try:
        told = json.loads(line)
        return f"{told.get('time', '')} {told['log']}".strip().encode()
    except (ValueError, KeyError, AttributeError, TypeError):
        return line


def _parts(line: bytes) -> Iterator[bytes]:
    """A line as what stands between carriage returns (CRLF, progress bars), and no longer than LONGEST."""
    for part in line.split(b"\r"):
        for begin in range(0, len(part), LONGEST):
            yield part[begin : begin + LONGEST]


def speaker(line: bytes) -> str:
    """Who says a line: "rank 1", "RayWorkerProc 12 on 10.0.0.2", "node1:4711"; empty where it does not tell."""
    if found := RANK.search(line):
        return f"rank {(found[1] or found[2]).decode()}"
    if found := PROCESS.search(line):
        return f"{found[1].decode()}:{found[2].decode()}"
    if found := ACTOR.search(line):
        where = f" on {found[3].decode()}" if found[3] else ""
        return f"{found[1].decode() or 'process'} {found[2].decode()}{where}"
    return ""


def _when(lines: list[bytes]) -> When | None:
    """The time of the last line, or of the nearest one before it that has one."""
    return next((moment for line in reversed(lines) if (moment := when(line))), None)


def when(line: bytes) -> When | None:
    """The time that a line begins with, whatever wrote it; years are not told apart."""
    head = line[:200]
    for pattern, clock in TIMES:
        if found := pattern.search(head):
            month, day, hour, minute, second = (int(found[index]) for index in range(1, 6))
            part = float(b"0." + found[6]) if found[6] else 0.0
            return When(clock, (((month * 31 + day) * 24 + hour) * 60 + minute) * 60 + second + part)
    return None
