"""The record of a lab: written before anything is made, so that ``shoal lab down`` finds all of it."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from shoal.errors import ShoalError
from shoal.host.local import LocalHost
from shoal.state.run import Proc, RunRecord

Kind = Literal["namespace", "loopback"]
EngineKind = Literal["sim", "vllm"]


class HostRecord(BaseModel):
    """A host of the lab. ``boot`` is the process that all of its processes descend from; None while it is off."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    number: int
    role: Literal["head", "worker"]
    address: str
    kind: Kind
    folder: str
    boot: Proc | None = None

    @property
    def disk(self) -> Path:
        """What outlives a reboot of this host."""
        return Path(self.folder) / "disk"


class FaultRecord(BaseModel):
    """A fault that lasts until it is undone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fault: str
    host: str
    role: str = ""
    procs: tuple[Proc, ...] = ()


class LabRecord(BaseModel):
    """A lab. ``tag`` is part of every name that it has on this machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tag: str
    kind: Kind
    engine: EngineKind
    subnet: str
    run: RunRecord
    hosts: tuple[HostRecord, ...]
    clock: bool = False
    faults: tuple[FaultRecord, ...] = ()
    made: tuple[str, ...] = ()

    def with_host(self, host: HostRecord) -> "LabRecord":
        """The record with one of its hosts replaced."""
        hosts = tuple(host if old.name == host.name else old for old in self.hosts)
        return self.model_copy(update={"hosts": hosts})


def record_file(folder: Path) -> Path:
    """The record's path in the lab's folder."""
    return folder / "lab.json"


def load(folder: Path) -> LabRecord | None:
    """The record, or None where there is no lab.

    Raises:
        ShoalError: there is one, and it cannot be understood.
    """
    text = LocalHost().read(str(record_file(folder)))
    if text is None:
        return None
    try:
        return LabRecord.model_validate_json(text)
    except ValidationError as error:
        raise ShoalError(
            f"cannot read {record_file(folder)}: {error.error_count()} fields are wrong",
            why="it was written by another version of shoal, or damaged",
            fix=f"look for processes that still run, then remove {record_file(folder)}",
        ) from error


def save(folder: Path, record: LabRecord) -> None:
    """Write the record in one step."""
    LocalHost().write(str(record_file(folder)), record.model_dump_json(indent=2) + "\n", mode=0o600)


def remove(folder: Path) -> None:
    """Forget the record."""
    record_file(folder).unlink(missing_ok=True)
