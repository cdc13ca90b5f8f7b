"""Resource limits of a process there: /proc/self/limits, else what a shell's ``ulimit`` says."""

import re

from shoal.facts.machine import Limit
from shoal.host.snapshot import Snapshot

FILE = "/proc/self/limits"
# The letter of ulimit -> the kernel's words, and the unit that the shell counts in.
ULIMIT = {
    "l": ("Max locked memory", 1024),
    "n": ("Max open files", 1),
    "u": ("Max processes", 1),
    "s": ("Max stack size", 1024),
    "c": ("Max core file size", 1024),
    "v": ("Max address space", 1024),
}


def parse_limits(snapshot: Snapshot) -> dict[str, Limit]:
    """By the kernel's words, sizes in bytes."""
    rows = re.findall(
        r"^(Max [a-z ]+?)\s{2,}(unlimited|\d{1,20})\s+(unlimited|\d{1,20})\b", snapshot.read(FILE) or "", re.MULTILINE
    )
    return _by_shell(snapshot) | {name.strip(): Limit(_value(soft), _value(hard)) for name, soft, hard in rows}


def _value(word: str, unit: int = 1) -> int | None:
    return None if word == "unlimited" else int(word) * unit


def _by_shell(snapshot: Snapshot) -> dict[str, Limit]:
    """The soft limit; ``ulimit -H`` is the hard one, and where that was not asked, the soft one stands for it."""
    soft: dict[str, int | None] = {}
    hard: dict[str, int | None] = {}
    for argv, reply in snapshot.replies_of("ulimit"):
        options = "".join(word.removeprefix("-") for word in argv[1:])
        into = hard if "H" in options else soft
        letter = options.replace("H", "").replace("S", "")
        alone = re.fullmatch(r"\s*(unlimited|\d{1,20})\s*", reply.out)
        found = [(letter, alone.group(1))] if alone else _lines(reply.out)
        for key, value in found:
            if key in ULIMIT:
                name, unit = ULIMIT[key]
                into[name] = _value(value, unit)
    return {name: Limit(value, hard.get(name, value)) for name, value in (hard | soft).items()}


def _lines(text: str) -> list[tuple[str, str]]:
    """``max locked memory (kbytes, -l) unlimited``: letter and value."""
    found: list[tuple[str, str]] = re.findall(r"-([a-zA-Z])\)\s*(unlimited|\d{1,20})\s*$", text, re.MULTILINE)
    return found
