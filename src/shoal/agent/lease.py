"""Which supervisor may run the engine: the head's agent remembers one owner, for as long as that one asks again."""

import time
from collections.abc import Callable

# Longer than two questions of an owner that is slow; a crashed one on another host is replaced after this.
LASTS = 10.0
RENEW_EVERY = 2.0


class Lease:
    """One owner at a time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._id = ""
        self._owner = ""
        self._until = float("-inf")

    def ask(self, holder: str, owner: str, *, release: bool = False) -> tuple[bool, str]:
        """Ask for it, or again for it: whether it is granted, and who has it in words."""
        now = self._clock()
        free = now > self._until or not self._id
        if release:
            if holder == self._id:
                self._id = self._owner = ""
            return True, self._owner
        if not free and holder != self._id:
            return False, self._owner
        self._id, self._owner, self._until = holder, owner, now + LASTS
        return True, owner
