"""What to do when the engine has ended. Pure."""

import re
from dataclasses import dataclass

WINDOW = 600.0
MAX_DELAY = 60.0
# Faults of arguments, model and set-up: the same start ends in the same way.
REPEATS = re.compile(
    r"unrecognized arguments|error: argument|following arguments are required|validation errors? for"
    r"|does not appear to have a file named|is not a valid model|No such file or directory: '[^']*config\.json'"
)


@dataclass(frozen=True)
class Again:
    """Start it again after ``delay`` seconds."""

    delay: float


@dataclass(frozen=True)
class GiveUp:
    """Leave it down, and say why. ``final``: nothing but a change will mend it."""

    why: str
    final: bool = False


@dataclass(frozen=True)
class Ends:
    """Earlier ends of the engine, as moments (monotonic seconds), and starts in a row without a token."""

    moments: tuple[float, ...] = ()
    tokenless: int = 0
    ever_ready: bool = False

    def ready(self) -> "Ends":
        """A token came."""
        return Ends(self.moments, 0, ever_ready=True)

    def ended(self, now: float, *, was_ready: bool, window: float = WINDOW) -> "Ends":
        """It ended."""
        recent = tuple(at for at in self.moments if now - at < window)
        return Ends((*recent, now), 0 if was_ready else self.tokenless + 1, self.ever_ready)


def repeats(why: str) -> bool:
    """Whether that end is one which a restart can only repeat."""
    return REPEATS.search(why) is not None


def after_end(
    ends: Ends, now: float, why: str, *, budget: int, dice: float = 0.5, window: float = WINDOW
) -> Again | GiveUp:
    """The decision after an end, given those before it. ``dice`` is random, from 0 to 1.

    A large model takes longer to load than any window, so starts in a row without a token have a count of their own.
    """
    if repeats(why) and not ends.ever_ready:
        return GiveUp("it ended before its first token, and would again", final=True)
    recent = [at for at in ends.moments if now - at < window]
    if ends.tokenless >= budget:
        return GiveUp(f"{ends.tokenless + 1} starts in a row ended before a token came")
    if len(recent) >= budget:
        return GiveUp(f"{len(recent)} restarts within {window / 60:g} minutes")
    count = max(len(recent), ends.tokenless)
    return Again(min(MAX_DELAY, 0.5 * 2.0 ** min(count, 16) * (0.75 + dice / 2)))
