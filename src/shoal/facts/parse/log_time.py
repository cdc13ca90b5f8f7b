"""When each line of a log was written, by whatever it begins with. Pure.

shoal's own story has the time of day alone, vLLM has no year, Ray has all of it, and a traceback has nothing. What is
missing follows from the lines after it: a log ends when its file was changed last.
"""

import calendar
import re
import time
from collections.abc import Sequence

DAY = 86400.0
SLACK = 120.0  # a line may be younger than what comes after it, by this: clocks are set, and writers race
HEAD = 160  # letters of a line that are looked at
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
WHOLE = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?(?P<zone>Z|[+-]\d\d:?\d\d)?", re.ASCII
)
NO_YEAR = re.compile(r"\b(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)\b", re.ASCII)
CLOCK = re.compile(r"(\d\d):(\d\d):(\d\d)\b", re.ASCII)
EPOCH = re.compile(r'\{"time": (\d{9,11}(?:\.\d+)?)[,}]', re.ASCII)


def moments(lines: Sequence[str], end: float, zone: float) -> list[float]:
    """Seconds since the epoch for each line; a line that says nothing has the moment of the one before it.

    Args:
        end: when the last line was written at the latest.
        zone: seconds by which the writer's clock is ahead of UTC.
    """
    known: list[float | None] = []
    for line in reversed(lines):
        known.append(_moment(COLOUR.sub("", line[:HEAD]), end, zone))
        end = end if known[-1] is None else known[-1]
    known.reverse()
    last = next((one for one in known if one is not None), end)
    out = []
    for one in known:
        last = last if one is None else one
        out.append(last)
    return out


def _moment(line: str, end: float, zone: float) -> float | None:
    """The moment that a line names, at ``end`` or before it; None where it names none."""
    try:
        if found := EPOCH.match(line):
            return float(found[1])
        if found := WHOLE.search(line):
            return _whole(found, zone)
        if found := NO_YEAR.search(line):
            year = time.gmtime(end + zone).tm_year
            said = [_epoch(year - ago, *map(int, found.groups())) - zone for ago in (0, 1)]
            return said[0] if said[0] <= end + DAY else said[1]
        if found := CLOCK.match(line):
            hours, minutes, seconds = map(int, found.groups())
            if hours > 23 or minutes > 59 or seconds > 60:
                return None
            midnight = (end + zone) // DAY * DAY - zone
            moment = midnight + hours * 3600 + minutes * 60 + seconds
            return moment if moment <= end + SLACK else moment - DAY
    except (ValueError, OverflowError):
        return None
    return None


def _whole(found: re.Match[str], zone: float) -> float:
    year, month, day, hours, minutes, seconds = (int(found[n]) for n in range(1, 7))
    part = float(f"0.{found[7]}") if found[7] else 0.0
    return _epoch(year, month, day, hours, minutes, seconds) + part - offset(found["zone"] or "", zone)


def _epoch(year: int, month: int, day: int, hours: int, minutes: int, seconds: int) -> float:
    if not (year >= 1970 and 1 <= month <= 12 and 1 <= day <= 31 and hours < 24 and minutes < 60 and seconds < 61):
        raise ValueError("it is no time")
    return float(calendar.timegm((year, month, day, hours, minutes, seconds)))


def offset(text: str, default: float = 0.0) -> float:
    """``Z``, ``+0200`` or ``+02:00`` as seconds; the default for anything else."""
    if text == "Z":
        return 0.0
    found = re.fullmatch(r"([+-])(\d\d):?(\d\d)", text.strip())
    return (1 if found[1] == "+" else -1) * (int(found[2]) * 3600.0 + int(found[3]) * 60.0) if found else default
