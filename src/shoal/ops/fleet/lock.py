"""One operator at a time: a lock on the head, with a name and an end. A dead operator's is taken over after that."""

import getpass
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from shoal.errors import AlreadyRunning, HostError, ShoalError
from shoal.host.base import Host
from shoal.host.send import carry_out

LASTS = 180.0  # seconds after the last sign of its owner
RENEW = 30.0
ALONG = 45.0  # a stage may take longer than the lock lasts: several hosts have minutes each


class Lock:
    """The lock of a cluster. Whoever has it asks for it again while he works."""

    def __init__(self, head: Host, root: str, verb: str) -> None:
        self._head, self._root, self._verb = head, root, verb
        self._owner = f"{getpass.getuser()}@{socket.gethostname()}"
        self._key = secrets.token_hex(8)
        self._asked = float("-inf")
        self._alone = threading.RLock()
        self._ended = threading.Event()

    def take(self) -> None:
        """Take it, or take it again where some time has passed.

        Raises:
            AlreadyRunning: somebody else has it.
        """
        with self._alone:
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

    def along(self) -> None:
        """Take it again and again while a stage runs, until it is given back. Whose it is now, the next stage says."""
        while not self._ended.wait(ALONG):
            with suppress(ShoalError), self._alone:
                if not self._ended.is_set():
                    self.take()

    def give_back(self) -> None:
        """Give it back; where that cannot be said, it ends by itself."""
        self._ended.set()
        with suppress(HostError), self._alone:
            self._ask(0)


@contextmanager
def locked(head: Host, root: str, verb: str) -> Iterator[Lock]:
    """Hold the lock."""
    lock = Lock(head, root, verb)
    lock.take()
    threading.Thread(target=lock.along, name="lock", daemon=True).start()
    try:
        yield lock
    finally:
        lock.give_back()
