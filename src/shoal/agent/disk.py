"""Is there room where the agent writes? Told when it changes: a full disk is survived, not hidden."""

import os
from pathlib import Path

from shoal.log import EventLog, Level

LITTLE = 4 << 20  # bytes; logs and journal need more within minutes


class Disk:
    """The disk that holds a folder."""

    def __init__(self, folder: Path, log: EventLog) -> None:
        self._folder = folder
        self._log = log
        self.words = ""

    def look(self) -> None:
        """Look at the room that is left; ``words`` say it where it is next to none."""
        before, self.words = self.words, full(self._folder)
        if bool(before) is not bool(self.words):
            self._log("disk", self.words or f"the disk of {self._folder} has room again", level=_level(self.words))


def _level(words: str) -> Level:
    return "warn" if words else "info"


def full(folder: Path) -> str:
    """That the disk of the folder is full, in words; empty where it is not, or cannot be asked."""
    try:
        about = os.statvfs(folder)
    except OSError:
        return ""
    left = about.f_bavail * about.f_frsize
    return f"the disk of {folder} is full: {left >> 10} KiB left" if left < LITTLE else ""
