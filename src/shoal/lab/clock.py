"""A wall clock that can jump, simulated: ``python -m shoal.lab.clock FILE agent`` is ``shoal agent`` with such a clock.

No namespace moves the wall clock. libfaketime 0.9.10 would, but with the monotonic clock left alone it breaks
``clock_nanosleep``, and with that every sleep of Python 3.11 and later. So the program's own view of the time is moved;
its children, and so Ray, see the machine's.
"""

import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path

FILE = "clock"


def offset(seconds: int) -> str:
    """What the file holds: by how many seconds the clock is off."""
    return f"{seconds:+d}\n"


def moved(real: Callable[[], float], file: Path) -> Callable[[], float]:
    """The clock ``real``, off by what the file says now; as it is where the file cannot be read."""

    def now() -> float:
        try:
            return real() + float(file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return real()

    return now


def main() -> None:
    """Move the clock, then be the program that the words name."""
    file, *words = sys.argv[1:]
    time.time = moved(time.time, Path(file))
    sys.argv = ["shoal", *words]
    # Loaded only now: what binds time.time at its import shall bind the moved one.
    runpy.run_module("shoal", run_name="__main__")


if __name__ == "__main__":
    main()
