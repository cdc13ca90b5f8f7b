"""What ``shoal env check`` says, and what its rules look at."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from shoal.log import MASK, is_secret
from shoal.nccl.variables import Version
from shoal.spec.dotenv import Dotenv, Entry

Role = Literal["head", "worker"]


class Severity(StrEnum):
    """FAIL: it cannot work as it is written. WARN: it does something else than it seems to. INFO: worth knowing."""

    FAIL = "FAIL"
    WARN = "WARN"
    INFO = "INFO"


@dataclass(frozen=True)
class Remark:
    """One finding in a file. A line of 0 speaks of the whole file."""

    line: int
    variable: str
    value: str
    severity: Severity
    what: str
    fix: str = ""


@dataclass(frozen=True)
class Settings:
    """A file's variables, and for which node and which NCCL they are judged."""

    file: Dotenv
    role: Role | None = None
    nccl: Version | None = None
    mode: int | None = None

    @property
    def entries(self) -> dict[str, Entry]:
        """The entry that counts, of each name; one that is taken from the shell is not known here."""
        return {entry.name: entry for entry in self.file.entries if not entry.inherited}

    def get(self, name: str) -> str:
        """The value, without the blanks that shoal drops as well; nothing for one that is not set."""
        entry = self.entries.get(name)
        return entry.value.strip() if entry else ""

    def mentions(self, name: str) -> bool:
        """Whether the file has this name, its value known or not."""
        return any(entry.name == name and (entry.inherited or entry.value.strip()) for entry in self.file.entries)

    def at(self, name: str, severity: Severity, what: str, fix: str = "") -> Remark:
        """A remark on a variable; a secret's value is masked."""
        entry = self.entries.get(name)
        value = entry.value if entry else ""
        return Remark(
            entry.line if entry else 0, name, MASK if value and is_secret(name) else value, severity, what, fix
        )

    def fail(self, name: str, what: str, fix: str = "") -> Remark:
        """It cannot work."""
        return self.at(name, Severity.FAIL, what, fix)

    def warn(self, name: str, what: str, fix: str = "") -> Remark:
        """It works differently from what it says."""
        return self.at(name, Severity.WARN, what, fix)

    def info(self, name: str, what: str, fix: str = "") -> Remark:
        """It is worth knowing."""
        return self.at(name, Severity.INFO, what, fix)


Remarks = Iterator[Remark]
