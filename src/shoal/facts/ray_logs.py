"""Why Ray's own processes ended: the fatal line in the logs of its session."""

import re
from pathlib import Path

# Such as: [2026-11-23 06:22:42,984 C 3611 3611] (gcs_server) gcs_server.cc:951: Unsupported GCS storage type: x
FATAL = re.compile(r"^\[\S+ \S+ [CF] \d+ \d+\] \(?(\w+)\)? \S+:\d+: +(.+)$", re.MULTILINE)
# What `ray start` says on five lines, the versions of the cluster first and its own after them.
MISMATCH = re.compile(
    r"Version mismatch: The cluster was started with:\s+Ray: (\S+)\s+Python: (\S+)\s+"
    r"This process on (?:node )?\S+ was started with:\s+Ray: (\S+)\s+Python: (\S+)"
)
LOGS = ("gcs_server.err", "raylet*.err")


def fatal_line(text: str) -> str:
    """The program and its first fatal message, or nothing."""
    found = FATAL.search(text)
    return f"{found[1]}: {found[2].strip()[:300]}" if found else ""


def version_mismatch(text: str) -> str:
    """That the head has another Ray or Python, on one line with what mends it; nothing where that was not said."""
    found = MISMATCH.search(text)
    if found is None:
        return ""
    theirs, ours = f"Ray {found[1]} on Python {found[2]}", f"Ray {found[3]} on Python {found[4]}"
    return f"the head has {theirs}, this node has {ours}; set the same SHOAL_IMAGE on both"


def read_fault(temp_dir: Path, since: float) -> str:
    """The first fatal message in the latest session's logs written after ``since`` (seconds since the epoch)."""
    for pattern in LOGS:
        for path in sorted((temp_dir / "session_latest" / "logs").glob(pattern)):
            try:
                if path.stat().st_mtime < since or not path.stat().st_size:
                    continue
                with path.open(encoding="utf-8", errors="replace") as file:
                    if fault := fatal_line(file.read(100_000)):
                        return fault
            except OSError:
                continue
    return ""
