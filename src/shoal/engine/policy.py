"""What to do when the engine has ended. Pure."""

from dataclasses import dataclass

WINDOW = 600.0
MAX_DELAY = 60.0


@dataclass(frozen=True)
class Again:
    """Start it again after ``delay`` seconds."""

    delay: float


@dataclass(frozen=True)
class GiveUp:
    """Leave it down, and say why."""

    why: str


def after_exit(ends: tuple[float, ...], now: float, *, was_ready: bool, budget: int) -> Again | GiveUp:
    """The decision after an end; ``ends`` are the moments of earlier ends (monotonic seconds).

    An engine that never produced a token has a fault that a restart only repeats, at the price of loading again.
    """
    if not was_ready:
        return GiveUp("it ended before its first token")
    recent = [at for at in ends if now - at < WINDOW]
    if len(recent) >= budget:
        return GiveUp(f"{len(recent)} restarts within {WINDOW / 60:g} minutes")
    return Again(min(MAX_DELAY, 0.5 * 2 ** len(recent)))
