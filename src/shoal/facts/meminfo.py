"""Memory as the kernel counts it."""

import re

GIB = 1 << 30


def parse_meminfo(text: str) -> dict[str, int]:
    """``/proc/meminfo`` as bytes by name; lines of another form are left out."""
    rows = re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)
    return {name: int(value) * 1024 for name, value in rows}


def gib(size: float) -> str:
    """Bytes in GiB, for people."""
    return f"{size / GIB:.1f} GiB"
