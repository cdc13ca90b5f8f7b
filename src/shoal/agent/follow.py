"""Ray's and NCCL's logs on this node, followed: a line that names a trouble is told once, with cause and fix."""

import time
from pathlib import Path

from shoal.explain.signature import Role
from shoal.explain.story import Story
from shoal.explain.verdict import say
from shoal.log import EventLog, Level

# The raylet's and the GCS's, and what ranks print, NCCL's words among it.
LOGS = ("raylet*.err", "raylet*.out", "gcs_server*.err", "gcs_server*.out", "worker-*.out", "worker-*.err")
LEVELS: dict[Role, Level] = {Role.CAUSE: "error", Role.SUSPECT: "warn", Role.SLOW: "warn"}
PIECE = 1 << 20
EVERY = 5.0  # seconds: an agent at rest stays small


class Follower:
    """Reads on in the logs of the newest session below Ray's folder, in what NCCL writes, and in the ranks' own log."""

    def __init__(self, temp_dir: Path, log: EventLog, nccl: Path | None = None, rank: Path | None = None) -> None:
        self._latest = temp_dir / "session_latest"
        self._nccl = nccl
        self._rank = rank
        self._log = log
        self._story = Story("ray")
        # What ranks said before this agent began was told by the one before.
        self._read: dict[Path, int] = {rank: _size(rank)} if rank else {}
        self._looked = 0.0

    def look_now_and_then(self) -> None:
        """Look, where the last look is some seconds ago."""
        if time.monotonic() - self._looked >= EVERY:
            self._looked = time.monotonic()
            self.look()

    def look(self) -> None:
        """Take in what was written since the last look, and tell what is new and known."""
        logs = (self._latest / "logs").resolve()
        files = sorted(path for pattern in LOGS for path in logs.glob(pattern))
        files += [*(sorted(self._nccl.glob("*.log")) if self._nccl else ()), *([self._rank] if self._rank else ())]
        for path in files:
            for hit in self._story.feed(self._lines(path)):
                if level := LEVELS.get(hit.signature.role):
                    says, fix = say(hit)
                    words = f"{says}; fix: {fix}" if fix else says
                    self._log(hit.signature.area, f"{words} ({path.name}: {hit.text[:200]})", level=level)

    def _lines(self, path: Path) -> list[bytes]:
        """Whole lines of a file beyond what was read; a line that is not ended yet is left for the next look."""
        begin = self._read.get(path, 0)
        try:
            if path.stat().st_size <= begin:
                return []
            with path.open("rb") as file:
                file.seek(begin)
                data = file.read(PIECE)
        except OSError:
            return []  # a session that was removed meanwhile
        whole = data.rfind(b"\n") + 1 or (len(data) if len(data) == PIECE else 0)
        self._read[path] = begin + whole
        return data[:whole].splitlines()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
