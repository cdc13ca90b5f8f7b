"""Sessions of the status page: random tokens, of which only digests are kept. They outlive the agent, not the key."""

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from shoal.errors import ShoalError
from shoal.host.base import Host

LIFETIME = 12 * 3600.0
MOST = 32
PURPOSE = b"shoal: the key that the page's sessions were opened with, 1"


class Sessions:
    """Who has shown the key within the last hours; the oldest make room for new ones."""

    def __init__(self, host: Host, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._host = host
        self._path = path
        self._clock = clock
        self._of_key, self._ends = self._load()

    def _load(self) -> tuple[str, dict[str, float]]:
        try:
            document = json.loads(self._host.read(str(self._path)) or "")
            return str(document["key"]), {str(name): float(end) for name, end in document["sessions"].items()}
        except (ShoalError, ValueError, KeyError, TypeError, AttributeError):
            return "", {}

    def open(self, key: str) -> str:
        """A new session; its token goes into the browser's cookie."""
        token = secrets.token_urlsafe(32)
        self._renew(key)
        self._ends[_digest(token)] = self._clock() + LIFETIME
        while len(self._ends) > MOST:
            del self._ends[min(self._ends, key=self._ends.__getitem__)]
        self._save()
        return token

    def knows(self, token: str, key: str) -> bool:
        """Whether the token is one of ours, was opened with this key, and has not ended."""
        if not hmac.compare_digest(self._of_key, _mark(key)):
            return False
        digest = _digest(token)
        found = [end for name, end in self._ends.items() if hmac.compare_digest(name, digest)]
        return bool(token) and any(self._clock() < end for end in found)

    def close(self, token: str) -> None:
        """End a session."""
        if self._ends.pop(_digest(token), None) is not None:
            self._save()

    def _renew(self, key: str) -> None:
        """Drop what has ended, and all where the key is another one."""
        mark, now = _mark(key), self._clock()
        same = hmac.compare_digest(self._of_key, mark)
        self._ends = {name: end for name, end in self._ends.items() if same and now < end}
        self._of_key = mark

    def _save(self) -> None:
        text = json.dumps({"key": self._of_key, "sessions": self._ends}) + "\n"
        try:
            self._host.write(str(self._path), text, mode=0o600)
        except (ShoalError, OSError):
            return  # a full disk: the session lives as long as the agent


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _mark(key: str) -> str:
    return hmac.new(key.encode(), PURPOSE, "sha256").hexdigest()
