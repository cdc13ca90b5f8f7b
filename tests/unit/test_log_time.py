"""When a line of a log was written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.facts.parse.log_time import moments, offset

# 2026-03-01 00:10:00 UTC.
END = 1772323800.0
DAY = 86400.0


@pytest.mark.parametrize(
    ("line", "before_end"),
    [
        ("00:09:00 UP         joined", 60.0),
        ("23:59:00 UP         yesterday", 660.0),
        ("00:11:00 UP         a little ahead", -60.0),
        ("2026-02-28T23:10:00.500Z ready", 3599.5),
        ("2026-03-01T02:10:00+02:00 ready", 0.0),
        ("[2026-02-28 00:10:00,250 I 12 12] (raylet) x", DAY - 0.25),
        ("\x1b[32mINFO\x1b[0m 02-28 23:10:00 [core.py:1] x", 3600.0),
        ("(RayWorkerProc pid=12) INFO 12-31 00:10:00 [x.py:1] x", 60 * DAY),
        ('{"time": 1772323790.5, "level": "info"}', 9.5),
    ],
)
def test_the_moment_of_a_line(line: str, before_end: float) -> None:
    """Each writer's form is understood; what it leaves out follows from the log's end."""
    assert moments([line], END, 0.0) == [END - before_end]


def test_the_writers_zone() -> None:
    """A clock without a zone is the writer's own."""
    assert moments(["02:09:00 UP x", "2026-03-01 02:10:00 y"], END, 7200.0) == [END - 60, END]


def test_lines_without_a_time() -> None:
    """They were written with the line before them; the first ones with the first that says a time."""
    lines = ["Traceback", "23:50:00 A", "  File x", "00:05:00 B", "", "99:99:99", "0000-00-00 00:00:00"]
    assert moments(lines, END, 0.0) == [END - 1200, END - 1200, END - 1200, *([END - 300] * 4)]
    assert moments(["a", "b"], END, 0.0) == [END, END]
    assert moments([], END, 0.0) == []


def test_several_days() -> None:
    """Going back, each midnight is noticed."""
    lines = ["23:00:00 a", "01:00:00 b", "23:30:00 c", "00:01:00 d"]
    assert moments(lines, END, 0.0) == [END - 90600, END - 83400, END - 2400, END - 540]


@given(st.lists(st.text(max_size=30), max_size=10), st.floats(0, 4e9))
def test_any_text_has_a_moment(lines: list[str], end: float) -> None:
    """Whatever a log holds, each line has one moment."""
    assert len(moments(lines, end, 0.0)) == len(lines)


@pytest.mark.parametrize(("text", "seconds"), [("Z", 0.0), ("+0200", 7200.0), ("-03:30", -12600.0), ("x", 5.0)])
def test_offsets(text: str, seconds: float) -> None:
    """An offset from UTC, as date and docker write it."""
    assert offset(text, 5.0) == seconds
