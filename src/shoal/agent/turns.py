"""How often this node's Ray was started, remembered on disk: each start has another port than the one before."""

from pathlib import Path

from shoal.errors import ShoalError
from shoal.host.base import Host


class Turns:
    """Counts starts, from 0. A disk that is full costs the memory beyond this agent's life, nothing more."""

    def __init__(self, host: Host, path: Path) -> None:
        self._host = host
        self._path = path
        self._next: int | None = None

    def take(self) -> int:
        """The number of the start that happens now."""
        turn = self._remembered() if self._next is None else self._next
        self._next = turn + 1
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._host.write(str(self._path), f"{self._next}\n")
        except (OSError, ShoalError):
            return turn
        return turn

    def _remembered(self) -> int:
        told = (self._host.read(str(self._path)) or "").strip()
        return int(told) if told.isascii() and told.isdigit() and len(told) < 10 else 0
