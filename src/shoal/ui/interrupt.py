"""What Ctrl-C is, and what is taken for it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130  # exit code


@contextmanager
def terminated_is_interrupted() -> Iterator[None]:
    """Let SIGTERM and a closed terminal do what Ctrl-C does: take the cluster down, not leave it behind."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        # As if the key had been pressed: whoever waits, asyncio too, knows how to end by that.
        signal.raise_signal(signal.SIGINT)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
