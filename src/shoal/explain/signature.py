"""What a known line means: as data, so that one table serves the command, the agent and the reference page."""

import re
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What part a line plays in an incident."""

    CAUSE = "cause"  # names what is wrong
    SUSPECT = "suspect"  # an error that can be the cause, and can follow from a peer's end
    SYMPTOM = "symptom"  # something did not go on; why stands elsewhere
    CASCADE = "cascade"  # a consequence of another process's end
    ECHO = "echo"  # a consequence that is also met where nothing is wrong: a client that hung up
    SLOW = "slow"  # it works, and not as fast as the machines can
    NOTE = "note"  # worth knowing, nothing is wrong by it
    BENIGN = "benign"  # looks bad, and is normal
    ALIVE = "alive"  # a sign of health: what went before was survived
    STEP = "step"  # a start that goes on: what was waited for before came
    STOP = "stop"  # someone asked for the end: what follows is its noise


@dataclass(frozen=True)
class Pattern:
    """Words to look for: a literal that is always in the line, and where that is not enough, a regular expression."""

    key: bytes
    regex: re.Pattern[bytes] | None = None
    since: str = ""  # the version that brought this form, where it moved

    def search(self, line: bytes) -> dict[str, str] | None:
        """The named groups, empty where there are none; None where the line is another."""
        if self.regex is None:
            return {} if self.key in line else None
        found = self.regex.search(line)
        if found is None:
            return None
        groups = found.groupdict()
        return {name: (text or b"").decode("utf-8", errors="replace")[:200] for name, text in groups.items()}


@dataclass(frozen=True)
class Signature:
    """One known line, or one judgement over a rank's report where there are no patterns."""

    id: str
    role: Role
    patterns: tuple[Pattern, ...]
    cause: str  # a sentence; {name} is a group of the pattern or a variable of the rank ("=value" or nothing)
    fix: str = ""  # a command, or what to do
    confirm: str = ""  # the check that would confirm it
    source: str = ""  # where the line comes from
    passing: bool = False  # is forgotten where the start goes on after it

    @property
    def area(self) -> str:
        """Whose line it is."""
        return self.id.partition(".")[0]


def words(key: str, regex: str = "", since: str = "") -> Pattern:
    """A pattern from text. ``key`` has to be in every line that ``regex`` is to find."""
    return Pattern(key.encode(), re.compile(regex.encode()) if regex else None, since)
