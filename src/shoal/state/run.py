"""The record of a cluster that was started from this machine: who runs, where, and since when.

It is written before and after each process is started, so that ``shoal down`` finds everything even when the command
that started it was killed.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from shoal.errors import ShoalError
from shoal.host.local import LocalHost


class Proc(BaseModel):
    """A process of ours. An id alone may be reused, so its start, in clock ticks since the boot, goes with it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: str
    pid: int
    ticks: int


class NodeRecord(BaseModel):
    """A node of the run: where its agent answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    role: str
    address: str
    gpus: int
    agent_url: str


class RunRecord(BaseModel):
    """A cluster that was started here. Its processes are of the boot that ``boot_id`` names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    boot_id: str
    cluster: str
    created: float
    model: str
    endpoint: str
    serve_url: str
    temp_dir: str
    log_dir: str
    api_key_file: str
    ray_address: str = ""
    nodes: tuple[NodeRecord, ...]
    procs: tuple[Proc, ...] = ()

    @property
    def page(self) -> str | None:
        """Where the status page is: the head's agent serves it."""
        return f"{self.nodes[0].agent_url}/" if self.nodes else None

    def adding(self, proc: Proc) -> "RunRecord":
        """The record with one more process."""
        return self.model_copy(update={"procs": (*self.procs, proc)})


def run_file(folder: Path) -> Path:
    """The record's path in a cluster's state folder."""
    return folder / "run.json"


def load(folder: Path) -> RunRecord | None:
    """The record in ``folder``, or None where nothing was started.

    Raises:
        ShoalError: there is one, and it cannot be read or understood.
    """
    try:
        text = run_file(folder).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ShoalError(
            f"cannot read {run_file(folder)}",
            why=error.strerror or str(error),
            fix=f"ls -ld {run_file(folder)}   # it must be a file that you may read",
        ) from error
    try:
        return RunRecord.model_validate_json(text)
    except ValidationError as error:
        raise ShoalError(
            f"cannot read {run_file(folder)}: {error.error_count()} fields are wrong",
            why="it was written by another version of shoal, or damaged",
            fix=f"look for processes that still run, then remove {run_file(folder)}",
        ) from error


def save(folder: Path, record: RunRecord) -> None:
    """Write the record in one step."""
    LocalHost().write(str(run_file(folder)), record.model_dump_json(indent=2) + "\n", mode=0o600)


def remove(folder: Path) -> None:
    """Forget the record."""
    run_file(folder).unlink(missing_ok=True)
