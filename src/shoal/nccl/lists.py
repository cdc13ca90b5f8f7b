"""Lists of names in NCCL's variables (``NCCL_IB_HCA``, ``NCCL_SOCKET_IFNAME``), parsed and matched as NCCL does."""

from collections.abc import Iterator
from dataclasses import dataclass

from shoal.nccl.environment import atoi
from shoal.nccl.variables import Version

# From here on entries are split at every colon (name:port:rail:plane), and a second ^ is part of a name.
SPLIT_SINCE: Version = (2, 30)
ANY = -1


@dataclass(frozen=True)
class Entry:
    """One entry; -1 is "any" for the port, and "not said" for rail and plane."""

    name: str
    port: int = ANY
    rail: int = ANY
    plane: int = ANY


@dataclass(frozen=True)
class NameList:
    """A list with its signs: ``^`` excludes, ``=`` wants whole names instead of beginnings."""

    entries: tuple[Entry, ...] = ()
    excludes: bool = False
    exact: bool = False

    def entry_for(self, name: str, port: int = ANY) -> Entry | None:
        """The first entry that the name matches."""
        for entry in self.entries:
            same = name == entry.name if self.exact else name.startswith(entry.name)
            if same and (ANY in {port, entry.port} or port == entry.port):
                return entry
        return None

    def takes(self, name: str, port: int = ANY) -> bool:
        """Whether NCCL takes what has this name. An empty list matches everything, so ``^`` alone takes nothing."""
        matched = not self.entries or self.entry_for(name, port) is not None
        return matched != self.excludes


def parse(text: str | None, version: Version, limit: int) -> NameList:
    """The list as NCCL of this version reads it; what comes after ``limit`` entries is dropped."""
    rest = text or ""
    excludes = rest.startswith("^")
    rest = rest.removeprefix("^")
    exact = rest.startswith("=")
    rest = rest.removeprefix("=")
    entries = _split(rest) if version >= SPLIT_SINCE else _old_split(rest.removeprefix("^"))
    return NameList(tuple(entries)[:limit], excludes, exact)


def _split(text: str) -> Iterator[Entry]:
    for item in text.split(","):
        name, *numbers = item.split(":")
        if name:
            port, rail, plane = (atoi(word) if word else ANY for word in [*numbers[:3], "", "", ""][:3])
            yield Entry(name, port, rail, plane)


def _old_split(text: str) -> Iterator[Entry]:
    for item in text.split(","):
        name, colon, port = item.partition(":")
        if name:
            yield Entry(name, atoi(port) if colon else ANY)
