"""The logs as one stream, with the name of the speaker."""

from pathlib import Path

import pytest

from shoal.errors import NotRunning, UsageError
from shoal.ops.logs import Line, choose, follow, read, speakers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("worker-1.log", "head.log", "head.ray.log", "vllm.log", "vllm.log.1", ".head.verify.json"):
        (tmp_path / name).write_text(f"{name} one\n")
    return tmp_path


def test_speakers(folder: Path) -> None:
    """Everybody with a log is a speaker; earlier logs and hidden files are not."""
    assert speakers(folder) == ("head", "head.ray", "vllm", "worker-1")


def test_choose(folder: Path) -> None:
    """Without a name all logs are shown but Ray's own; with one, that log only, Ray's as well."""
    assert choose(folder, None) == ("head", "vllm", "worker-1")
    assert choose(folder, "head.ray") == ("head.ray",)


def test_unknown_speaker(folder: Path) -> None:
    """A name that nobody has is refused with the nearest one."""
    with pytest.raises(UsageError) as caught:
        choose(folder, "worker-2")
    assert (caught.value.what, caught.value.why) == ('no log of "worker-2"', 'did you mean "worker-1"?')


@pytest.mark.parametrize("wanted", [None, "head"])
def test_no_logs(tmp_path: Path, wanted: str | None) -> None:
    """Where no log exists, or no folder, nothing was up yet."""
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(NotRunning, match="there are no logs"):
            choose(path, wanted)


def test_read(folder: Path) -> None:
    """Lines come with their speaker, each once, whole, and undecodable bytes do not stop them."""
    positions: dict[str, int] = {}
    names = ("head", "vllm")
    assert list(read(folder, names, positions)) == [Line("head", "head.log one"), Line("vllm", "vllm.log one")]
    with (folder / "vllm.log").open("ab") as file:
        file.write(b"two \xff\n\nhal")
    assert list(read(folder, names, positions)) == [Line("vllm", "two �"), Line("vllm", "")]
    with (folder / "vllm.log").open("ab") as file:
        file.write(b"f\n")
    assert list(read(folder, names, positions)) == [Line("vllm", "half")]
    assert positions == {"head": 13, "vllm": 25}


def test_read_absent(folder: Path) -> None:
    """A log that was removed has no lines."""
    assert list(read(folder, ("absent",), {})) == []


def test_follow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Following gives what is there, and what is written later."""
    monkeypatch.setattr("time.sleep", lambda _: (folder / "head.log").write_text("head.log one\ntwo\n"))
    lines = follow(folder, ("head",), {})
    assert [next(lines), next(lines)] == [Line("head", "head.log one"), Line("head", "two")]
