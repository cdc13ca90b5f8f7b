"""One operator at a time: a lock on the head, with a name and an end. A dead operator's is taken over after that."""

import getpass
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from shoal.errors import AlreadyRunning, HostError
from shoal.host.base import Host
from shoal.host.send import carry_out

LASTS = 180.0  # seconds; longer than any step that does not ask for it again
RENEW = 30.0


class Lock:
    """The lock of a cluster. Whoever has it asks for it again while he works."""

    def __init__(self, head: Host, root: str, verb: str) -> None:
        self._head, self._root, self._verb = head, root, verb
        self._owner = f"{getpass.getuser()}@{socket.gethostname()}"
        self._key = secrets.token_hex(8)
        self._asked = float("-inf")

    def take(self) -> None:
        """Take it, or take it again where some time has passed.

        Raises:
            AlreadyRunning: somebody else has it.
        """
        if time.monotonic() - self._asked < RENEW:
            return
        if held := self._ask(LASTS):
            raise AlreadyRunning(
                f"{held['owner']} changes this cluster just now: shoal {held['verb']}",
                why=f"one operator at a time; the lock on {self._head.name} ends in {held['left']:.0f} s by itself",
                fix="wait until that has ended, then try again",
            )
        self._asked = time.monotonic()

    def keep(self) -> None:
        """Take it again at a stage's beginning: the stages together last longer than it does.

        Raises:
            AlreadyRunning: it had ended, and somebody else has it.
        """
        with suppress(HostError):  # where the head cannot be asked, the stage says so
            self.take()

    def _ask(self, seconds: float) -> dict[str, str]:
        step = {"do": "lock", "owner": self._owner, "verb": self._verb, "key": self._key, "seconds": seconds}
        return dict(carry_out(self._head, self._root, [step])[0])

    def give_back(self) -> None:
        """Give it back; where that cannot be said, it ends by itself."""
        try:
            self._ask(0)
        except HostError:
            return


@contextmanager
def locked(head: Host, root: str, verb: str) -> Iterator[Lock]:
    """Hold the lock."""
    lock = Lock(head, root, verb)
    lock.take()
    try:
        yield lock
    finally:
        lock.give_back()
