"""What all parsers share: numbers, JSON and replies, read without trust."""

import json
import re
from collections.abc import Iterator
from typing import Any

from shoal.host.snapshot import Snapshot

LONGEST = 40  # digits; what is longer is no number of a machine


def whole(text: str | None) -> int | None:
    """A decimal or 0x number, sign allowed; None for everything else."""
    word = (text or "").strip()
    if len(word) > LONGEST or not word.isascii():
        return None
    try:
        return int(word, 16 if word.lower().lstrip("+-").startswith("0x") else 10)
    except ValueError:
        return None


def leading(text: str | None) -> int | None:
    """The whole number that a text begins with: 143771 of ``143771 MiB``."""
    value = number(text)
    return None if value is None else int(value)


def number(text: str | None) -> float | None:
    """The number that a text begins with: 82.13 of ``82.13 W``."""
    found = re.match(r"\s*([+-]?[0-9]{1,18}(?:\.[0-9]{1,18})?)", text or "")
    return float(found.group(1)) if found else None


def flag(text: str | None) -> bool | None:
    """Enabled, Yes, Active, On, 1 and their opposites; None for N/A and everything else."""
    word = (text or "").strip().lower()
    if word in {"enabled", "yes", "y", "active", "on", "1", "true", "up"}:
        return True
    return False if word in {"disabled", "no", "n", "not active", "inactive", "off", "0", "false", "down"} else None


def known(text: str | None) -> str | None:
    """The text; None where it is empty or says that it does not know."""
    word = (text or "").strip().strip("\0")
    return None if word.lower() in {"", "n/a", "[n/a]", "none", "unknown", "unknown error", "[not supported]"} else word


def outputs(snapshot: Snapshot, program: str, *words: str) -> Iterator[str]:
    """What that program printed, wherever it ended well."""
    return (reply.out for _, reply in snapshot.replies_of(program, *words) if reply.code == 0 and reply.out.strip())


def output(snapshot: Snapshot, program: str, *words: str) -> str | None:
    """The first of them; None where there is none."""
    return next(outputs(snapshot, program, *words), None)


def first_line(text: str | None) -> str | None:
    """The first line that holds something."""
    return next((line.strip() for line in (text or "").splitlines() if line.strip()), None)


def rows(text: str | None) -> list[dict[str, Any]]:
    """A JSON array of objects; empty for everything else."""
    try:
        value = json.loads(text or "")
    except (ValueError, RecursionError):
        return []
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def document(text: str | None) -> dict[str, Any]:
    """A JSON object; empty for everything else."""
    try:
        value = json.loads(text or "")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def string(value: Any) -> str | None:
    """A JSON string; None for everything else."""
    return value if isinstance(value, str) else None


def integer(value: Any) -> int | None:
    """A JSON number without fraction; None for everything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def missing(snapshot: Snapshot, program: str) -> bool | None:
    """Whether the machine has no such program; None where nobody called it."""
    codes = [reply.code for _, reply in snapshot.replies_of(program)]
    return all(code == 127 for code in codes) if codes else None
