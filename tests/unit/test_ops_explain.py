"""Logs are opened whatever they are: files, folders, gzip, standard input, rubbish, nothing."""

import gzip
import io
import json
import os
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from shoal.errors import UsageError
from shoal.explain.story import LONGEST, Story
from shoal.ops.explain import explain_paths, files, pieces
from shoal.ui.cli import main

OOM = b"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n"
KEYS = [
    "schema_version",
    "status",
    "verdict",
    "root_cause",
    "confidence",
    "fix",
    "confirm",
    "evidence",
    "ranks",
    "benign",
]


def shoal(*words: str, data: bytes = b"", **env: str) -> Result:
    """`shoal explain WORDS` in this process."""
    return CliRunner().invoke(main, ["explain", *words], prog_name="shoal", input=data, env={"COLUMNS": "200"} | env)


def test_a_file(tmp_path: Path) -> None:
    """A log with a cause: the verdict, its line and its fix are shown, and the code is 1."""
    log = tmp_path / "vllm.log"
    log.write_bytes(b"INFO fine\n" + OOM)
    done = shoal(str(log))
    lines = [line.strip() for line in done.output.splitlines()]
    assert (done.exit_code, lines[0], lines[1], lines[4]) == (
        1,
        "failed: the GPU's memory ran out",
        "cause cuda.out-of-memory",
        f"{log}:2 cause",
    )


def test_nothing_wrong(tmp_path: Path) -> None:
    """A log without trouble is an answer too, and the code is 0."""
    log = tmp_path / "vllm.log"
    log.write_bytes(b"INFO:     Application startup complete.\n")
    done = shoal(str(log))
    assert (done.exit_code, done.output) == (0, "ok: Nothing wrong found in 1 lines\n")


def test_an_empty_file(tmp_path: Path) -> None:
    """An empty log has nothing to explain."""
    log = tmp_path / "empty.log"
    log.touch()
    done = shoal(str(log))
    assert (done.exit_code, done.output) == (0, "empty: Nothing to explain: there are no lines\n")


def test_no_such_file() -> None:
    """A file that is not there is named, with code 2."""
    done = shoal("/no/such/file")
    assert (done.exit_code, "no such file: /no/such/file" in done.output) == (2, True)


def test_no_name_and_no_cluster(tmp_path: Path) -> None:
    """Without a name, and where no cluster was up, it says what to do."""
    done = shoal(SHOAL_STATE_DIR=str(tmp_path))
    assert (done.exit_code, "fix: shoal explain FILE" in done.output) == (2, True)


def test_the_cluster_s_own_logs(tmp_path: Path) -> None:
    """Without a name the logs of the local cluster are read."""
    logs = tmp_path / "local" / "logs"
    logs.mkdir(parents=True)
    (logs / "vllm.log").write_bytes(OOM)
    assert shoal(SHOAL_STATE_DIR=str(tmp_path)).exit_code == 1


def test_standard_input() -> None:
    """A dash is standard input; the document for programs has the agreed keys."""
    done = shoal("--json", "-", data=OOM)
    document = json.loads(done.output)
    assert (done.exit_code, list(document)[: len(KEYS)], document["root_cause"], document["evidence"][0]["file"]) == (
        1,
        KEYS,
        "cuda.out-of-memory",
        "-",
    )


def test_a_folder(tmp_path: Path) -> None:
    """A folder is all files below it but hidden ones, in the order of their names."""
    for name in ("b.log", "a.log", ".notes", ".git/x", "sub/c.log"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(OOM)
    assert files([str(tmp_path)]) == [str(tmp_path / name) for name in ("a.log", "b.log", "sub/c.log")]


def test_gzip(tmp_path: Path) -> None:
    """Packed logs are read, also several packed ones behind each other, and one that was cut off as far as it goes."""
    log = tmp_path / "vllm.log.gz"
    noise = random.Random(1).randbytes(3_000_000)
    whole = gzip.compress(b"INFO fine\n") + gzip.compress(OOM) + gzip.compress(noise)
    for data in (whole, whole[:-1000], whole + b"\0" * 100):
        log.write_bytes(data)
        assert explain_paths([str(log)]).root_cause == "cuda.out-of-memory"


def test_damaged_gzip(tmp_path: Path) -> None:
    """What only looks like gzip is read as nothing, not as an error."""
    log = tmp_path / "x.gz"
    log.write_bytes(b"\x1f\x8b" + os.urandom(5000))
    assert explain_paths([str(log)]).status in {"ok", "empty"}


def test_a_folder_that_is_too_big(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More files than one incident has are refused."""
    monkeypatch.setattr("shoal.ops.explain.MOST_FILES", 2)
    for name in "abc":
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match="3 files: more than the 2"):
        files([str(tmp_path)])


def test_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error while reading is a sentence with the name of the file."""

    def broken() -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=SimpleNamespace(read=lambda _: broken())))
    with pytest.raises(UsageError, match="cannot read -"):
        list(pieces("-"))


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_pieces_of_any_size(size: int) -> None:
    """Lines are numbered by their line feeds, however the bytes arrive."""
    log = io.BytesIO(b"a\r\nprogress 1%\rprogress 2%\n" + b"x" * (3 * LONGEST) + b"\n" + OOM)
    story = Story("log")
    story.read(iter(lambda: log.read(size), b""))
    assert (story.lines, [(hit.signature.id, hit.line) for hit in story.hits.values()]) == (
        4,
        [("cuda.out-of-memory", 4)],
    )


def test_a_line_without_end() -> None:
    """A line that never ends is read in pieces: nothing is kept of it, and what it says is found."""
    story = Story("log")
    story.read(b"x" * 100_000 for _ in range(50))
    story.read([OOM])
    assert story.hits["cuda.out-of-memory"].line == 2
