"""Sizes for people."""

UNITS = ("B", "KiB", "MiB", "GiB")


def size_label(size: float) -> str:
    """Bytes in the largest unit that fits: 4 KiB."""
    power = 0
    while size >= 1024 and power < len(UNITS) - 1:
        size, power = size / 1024, power + 1
    return f"{size:.0f} {UNITS[power]}"
