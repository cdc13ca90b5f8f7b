"""What a node decided and saw, kept: one JSON object a line, appended, in two files of bounded size.

Nothing is decided from a journal: people and evidence read it. So it never stands in the way. A line is one ``write``
into the kernel's cache, where it survives every death of ours; only a power cut loses the last seconds. There is no
``fsync``: on a slow disk it would hold the program, and its heartbeats with it, for seconds. A disk that is full is
said once, and the program goes on without its journal until there is room again.
"""

import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shoal.log import Event

LIMIT = 1 << 20
FOLDER = "journal"
# Said at every start, of interest only there: the log has them.
UNREMEMBERED = frozenset({"banner"})


@dataclass(frozen=True)
class Entry:
    """One remembered event; ``time`` in seconds since the epoch, ``kind`` for machines, ``words`` for people."""

    time: float
    node: str
    kind: str
    words: str
    level: str = "info"
    data: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """The entry as it stands in the file, without the line's end."""
        return json.dumps(self.__dict__, ensure_ascii=False, default=str)


def parse(line: str) -> Entry | None:
    """One line; None where it is torn or none of ours."""
    try:
        document = json.loads(line)
        fields = {name: document[name] for name in ("node", "kind", "words")}
        if not all(isinstance(value, str) for value in fields.values()):
            return None
        data = document.get("data")
        return Entry(
            float(document["time"]),
            **fields,
            level=str(document.get("level", "info")),
            data=data if isinstance(data, dict) else {},
        )
    except (ValueError, KeyError, TypeError):
        return None


def journal_file(state_dir: str | Path, node: str) -> Path:
    """Where the journal of that node, or of the engine, lies."""
    return Path(state_dir) / FOLDER / f"{node}.jsonl"


class Journal:
    """Appends to one file; the file before it is kept as ``.1``."""

    def __init__(self, path: Path, node: str, complain: Callable[[str], None], limit: int = LIMIT) -> None:
        self.path = path
        self._node = node
        self._complain = complain
        self._limit = limit
        self._lost = 0

    def listen(self, event: Event) -> None:
        """Remember an event of the log; as a listener of it, its secrets are masked by then."""
        if event.name in UNREMEMBERED or event.fields.get("again"):
            return
        data = {name: value for name, value in event.fields.items() if name != "again"}
        self.append(Entry(event.time, self._node, event.name, event.message, event.level, data))

    def append(self, entry: Entry) -> None:
        """Remember one entry. Never raises: a program that serves outlives its journal."""
        entries = [entry]
        if self._lost:
            words = f"{self._lost} event(s) were not written: the disk was full or could not be written"
            entries.insert(0, Entry(entry.time, self._node, "journal", words, "warn"))
        try:
            self._write("".join(one.line() + "\n" for one in entries).encode())
        except OSError as error:
            if not self._lost:
                self._complain(f"cannot write the journal {self.path}: {error.strerror}; going on without it")
            self._lost += 1
            return
        self._lost = 0

    def _write(self, data: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                data = b"\n" + data  # a line that was torn by a power cut or a full disk must not take ours with it
            written = os.write(handle, data)
            if written < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(handle)
        if size + len(data) > self._limit:
            self.path.replace(self.path.with_suffix(".jsonl.1"))


def read(path: Path, since: float = 0.0) -> list[Entry]:
    """What was remembered in a journal and its predecessor since that moment; torn lines are passed over."""
    out = []
    for part in (path.with_suffix(".jsonl.1"), path):
        try:
            text = part.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        out += [entry for line in text.splitlines() if (entry := parse(line)) and entry.time >= since]
    return out


def last(path: Path, most: int, size: int = 1 << 16) -> list[Entry]:
    """The last entries of a journal, out of the last ``size`` bytes of its file: cheap, however long it is."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [entry for line in text.splitlines() if (entry := parse(line))][-most:]


def parse_list(text: bytes) -> list[Entry]:
    """What an agent answers at ``/events``; ValueError where it is no JSON."""
    document = json.loads(text)
    if not isinstance(document, list):
        return []
    return [entry for item in document if (entry := parse(json.dumps(item)))]


def read_folder(state_dir: str | Path, since: float = 0.0) -> list[Entry]:
    """What all journals in a state folder remember, in the order of time."""
    files = sorted((Path(state_dir) / FOLDER).glob("*.jsonl"))
    names = {path.name for path in files}
    rotated = [path.with_suffix("") for path in sorted((Path(state_dir) / FOLDER).glob("*.jsonl.1"))]
    files += [path for path in rotated if path.name not in names]
    return merge(read(path, since) for path in files)


def merge(journals: Iterable[Iterable[Entry]]) -> list[Entry]:
    """Several journals as one, in the order of time; clocks of different nodes may differ."""
    return sorted((entry for journal in journals for entry in journal), key=lambda entry: (entry.time, entry.node))


def tail(path: Path, lines: int) -> Iterator[str]:
    """The last entries as their lines, for evidence."""
    for entry in read(path)[-lines:]:
        yield entry.line()
