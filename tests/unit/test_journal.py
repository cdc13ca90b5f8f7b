"""The journal: what is kept, what is passed over, and what a full disk costs."""

import errno
import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.log import EventLog, redactor
from shoal.state.journal import Entry, Journal, journal_file, merge, parse, read, read_folder


def entry(time: float, words: str = "w", node: str = "n", kind: str = "k") -> Entry:
    return Entry(time, node, kind, words)


def opened(path: Path, limit: int = 1 << 20) -> tuple[Journal, list[str]]:
    """A journal, and what it complained about."""
    said: list[str] = []
    return Journal(path, "n", said.append, limit), said


def test_what_was_appended_is_read_back(tmp_path: Path) -> None:
    """Entries come back whole and in order, with all words and data, from a file that only its owner may read."""
    path = journal_file(tmp_path, "n")
    book, said = opened(path)
    entries = [entry(1.5, "zwei\nZeilen ü"), Entry(2.0, "n", "lost", "gone", "warn", {"node_id": "ab", "count": 3})]
    for one in entries:
        book.append(one)
    assert (read(path), said, path.stat().st_mode & 0o777) == (entries, [], 0o600)
    assert read(path, since=2.0) == entries[1:]


def test_a_torn_last_line_costs_itself_and_nothing_else(tmp_path: Path) -> None:
    """After a power cut in the middle of a line, all others are read, and the next one begins a new line."""
    path = tmp_path / "n.jsonl"
    book, _ = opened(path)
    book.append(entry(1.0))
    with path.open("a") as file:
        file.write(entry(2.0).line()[:20])
    book.append(entry(3.0))
    assert [one.time for one in read(path)] == [1.0, 3.0]


@given(st.lists(st.floats(0, 1e9), max_size=8), st.integers(0, 400))
def test_no_tear_is_an_error(times: list[float], cut: int) -> None:
    """Cut anywhere, a journal is read up to the cut: never an exception, never an entry that was not written."""
    lines = [entry(time).line() for time in times]
    kept = "\n".join(lines)[:cut].split("\n")
    found = [one for line in kept if (one := parse(line))]
    assert [one.line() for one in found] == [line for line in kept if line in lines]


def test_it_is_bounded_by_two_files(tmp_path: Path) -> None:
    """Beyond its limit the file becomes the predecessor; together they never hold more than twice the limit."""
    path = tmp_path / "n.jsonl"
    book, _ = opened(path, limit=1000)
    for number in range(200):
        book.append(entry(float(number)))
    assert sum(part.stat().st_size for part in tmp_path.iterdir()) <= 2200
    assert [one.time for one in read(path)] == [float(number) for number in range(200)][-len(read(path)) :]
    assert sorted(part.name for part in tmp_path.iterdir()) in (["n.jsonl", "n.jsonl.1"], ["n.jsonl.1"])


def test_a_full_disk_is_said_once_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing can be written there is one complaint; when there is room again the gap is written down."""
    path = tmp_path / "n.jsonl"
    book, said = opened(path)
    write = os.write

    def full(handle: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    for number in range(3):
        book.append(entry(float(number)))
    monkeypatch.setattr(os, "write", write)
    book.append(entry(9.0, "back"))
    assert said == [f"cannot write the journal {path}: No space left on device; going on without it"]
    assert [one.words for one in read(path)] == [
        "3 event(s) were not written: the disk was full or could not be written",
        "back",
    ]


def test_a_line_that_found_half_its_room_is_torn_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that the kernel took in part counts as lost, and what follows is whole."""
    path = tmp_path / "n.jsonl"
    book, said = opened(path)
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:10]))
    book.append(entry(1.0))
    monkeypatch.setattr(os, "write", write)
    book.append(entry(2.0))
    assert (len(said), [one.time for one in read(path)]) == (1, [2.0, 2.0])


def test_it_listens_to_the_log_with_secrets_masked(tmp_path: Path) -> None:
    """Each event of the log is remembered as it was said; the banner and what is only said again are not."""
    path = tmp_path / "n.jsonl"
    log = EventLog(io.StringIO(), processors=[redactor(["s3cret-token"])], clock=lambda: 5.0)
    log.listeners.append(opened(path)[0].listen)
    log("banner", "RAY_MODE=head")
    log("up", "with s3cret-token", level="warn", node="w")
    log("wait_head", "still waiting", again=True)
    assert read(path) == [Entry(5.0, "n", "up", "with ********", "warn", {"node": "w"})]


def test_a_log_on_a_full_disk_stops_nothing() -> None:
    """An output that cannot be written is counted; the listeners hear the event all the same."""

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    heard: list[str] = []
    log = EventLog(Full())
    log.listeners.append(lambda event: heard.append(event.message))
    log("up", "words")
    assert (heard, log.unwritten) == (["words"], 1)


def test_journals_of_several_nodes_are_one_story(tmp_path: Path) -> None:
    """All journals of a folder, and their predecessors, are read in the order of time."""
    for name, times in {"a": (1.0, 4.0), "b": (2.0, 3.0)}.items():
        book = Journal(journal_file(tmp_path, name), name, print)
        for time in times:
            book.append(entry(time, node=name))
    journal_file(tmp_path, "b").rename(journal_file(tmp_path, "b").with_suffix(".jsonl.1"))
    assert [(one.time, one.node) for one in read_folder(tmp_path)] == [(1.0, "a"), (2.0, "b"), (3.0, "b"), (4.0, "a")]
    assert merge([[entry(2.0)], [entry(1.0)]]) == [entry(1.0), entry(2.0)]
