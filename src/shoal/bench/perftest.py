"""perftest's ``ib_write_bw`` and ``ib_write_lat``: how they are called, and what their tables say. Pure.

The table is the one form that every version prints: ``--output`` and ``--out_json`` came later, and mean different
things in different versions.
"""

import re
from dataclasses import dataclass

BANDWIDTH, LATENCY = "ib_write_bw", "ib_write_lat"
PACKAGE = "perftest"
# bytes, iterations, peak, average; without a peak (-D) the peak is 0.
BW_ROW = re.compile(r"^\s*\d+\s+\d+\s+([\d.]+)\s+([\d.]+)\s+[\d.]+", re.MULTILINE)
# bytes, iterations, least, most, typical
LAT_ROW = re.compile(r"^\s*\d+\s+\d+\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)", re.MULTILINE)
UNIT = re.compile(r"BW average\[(\w+)/sec\]")
GBITS = {"Gb": 1.0, "MiB": 8 * (1 << 20) / 1e9, "MB": 8 * (1 << 20) / 1e9}  # old versions say MB and mean MiB
NO_SERVER = re.compile(r"ouldn.t connect|Connection refused|Unable to open file descriptor for socket connection")
NOISE = re.compile(r"^[-\s]*$|^\s*\*|^ ?(?:Conflicting CPU frequency|Test ran with Conflicting)")


@dataclass(frozen=True)
class Shape:
    """How much is sent: bytes of a message, seconds, queue pairs; round trips for the latency."""

    size: int = 1 << 20
    seconds: int = 3
    pairs: int = 4
    trips: int = 1000


def argv(program: str, device: str, port: int, gid: int | None, shape: Shape, door: int) -> tuple[str, ...]:
    """The server's words; the client's are these and the server's address."""
    where = ("-d", device, "-i", str(port), *(("-x", str(gid)) if gid is not None else ()), "-p", str(door), "-F")
    if program == LATENCY:
        return (program, *where, "-s", "8", "-n", str(shape.trips))
    return (program, *where, "-s", str(shape.size), "-D", str(shape.seconds), "-q", str(shape.pairs), "--report_gbits")


def gbps(text: str) -> float | None:
    """The average in Gb/s; None where the table is not there."""
    unit, rows = UNIT.search(text), BW_ROW.findall(text)
    if not unit or not rows or unit[1] not in GBITS:
        return None
    return float(rows[-1][1]) * GBITS[unit[1]]


def microseconds(text: str) -> float | None:
    """The typical latency of one way; None where the table is not there."""
    rows = LAT_ROW.findall(text) if "t_typical" in text else []
    return float(rows[-1][2]) if rows else None


def refused(text: str) -> bool:
    """Whether the client found nobody who listens: the server comes a moment later."""
    return NO_SERVER.search(text) is not None


def complaint(out: str, err: str) -> str:
    """The first line that says what is wrong."""
    lines = [line.strip() for line in (*err.splitlines(), *out.splitlines()) if not NOISE.match(line)]
    return lines[0] if lines else "it printed nothing"
