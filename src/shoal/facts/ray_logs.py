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
# What Ray prints beside the cause: counters with "error" in their names, and a metrics exporter that nobody runs.
CHATTER = re.compile(r"\[state-dump\]|metrics exporter|metrics agent|Remaining processes will be killed")
# Such as: 2026-11-24 23:41:00,324 ERR scripts.py:1306 -- raylet [exit code=-9]
DIED = re.compile(r"\w+ \[exit code=-?\d+\]")
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


def last_words(text: str) -> str:
    """The line of a failed ``ray start`` that names the cause: the last one that is no decoration."""
    if told := version_mismatch(text):
        return told
    lines = [line.strip() for line in text.splitlines() if line.strip() and not CHATTER.search(line)]
    died = [found[0] for line in lines if (found := DIED.search(line))]
    if died:
        return f"{died[-1]} ended unexpectedly"
    telling = [line for line in lines if "Error" in line or "rror:" in line or "abort" in line.lower()]
    return (telling or lines or [""])[-1][:300]
