"""The machine's clock: since when it runs, whether something keeps it right, and how far off it is."""

import re

from shoal.facts.parse.text import flag, number, output, outputs
from shoal.host.snapshot import Snapshot


def uptime(snapshot: Snapshot) -> float | None:
    """Seconds since the boot."""
    return number(snapshot.read("/proc/uptime"))


def synchronised(snapshot: Snapshot) -> bool | None:
    """Whether a time service keeps the clock: by ``timedatectl``, else ``chronyc tracking``."""
    for text in outputs(snapshot, "timedatectl"):
        found = re.search(
            r"^\s*(?:NTPSynchronized=|System clock synchronized: |NTP synchronized: )(\w+)", text, re.MULTILINE
        )
        if found:
            return flag(found.group(1))
    leap = re.search(r"^Leap status\s*: (.+)$", output(snapshot, "chronyc", "tracking") or "", re.MULTILINE)
    return leap.group(1).strip() == "Normal" if leap else None


def offset(snapshot: Snapshot) -> float | None:
    """Seconds that its clock was ahead of the reader's; else of its time service's, by ``chronyc tracking``."""
    if snapshot.taken is not None and snapshot.asked is not None:
        return round(snapshot.taken - snapshot.asked, 3)
    text = output(snapshot, "chronyc", "tracking") or ""
    found = re.search(r"^System time\s*: ([\d.]{1,20}) seconds (slow|fast)", text, re.MULTILINE)
    value = number(found.group(1)) if found else None
    return None if found is None or value is None else value * (1 if found.group(2) == "fast" else -1)
