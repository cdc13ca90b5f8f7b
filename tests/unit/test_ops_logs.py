"""The logs as one stream: in the order of time, with the name of the speaker."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from shoal.errors import CommandFailed, HostError, HostUnreachable, NotRunning, UsageError
from shoal.host.base import Result
from shoal.host.fake import FakeHost
from shoal.ops.logs import FileLog, Line, Log, Troubles, choose, follow, merged, of_folder, together
from shoal.ops.logs_hosts import LARGEST, LIST, READ, SAID, ContainerLog, HostLog, containers, of_hosts
from shoal.ops.logs_hosts import together as over_ssh
from shoal.ui.cli import main

ROOT = ".local/share/shoal/lab"
END = 1772323800  # 2026-03-01 00:10:00 UTC
DAY = 86400.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("worker-1.log", "head.log", "head.ray.log", "vllm.log", "vllm.log.1", ".head.verify.json"):
        (tmp_path / name).write_text(f"{name} one\n")
        os.utime(tmp_path / name, (0, END))
    return tmp_path


def speakers(logs: "list[Log] | tuple[Log, ...]") -> list[str]:
    return [log.speaker for log in logs]


def texts(lines: list[Line]) -> list[tuple[str, str]]:
    return [(line.speaker, line.text) for line in lines]


def test_speakers(folder: Path) -> None:
    """Everybody with a log is a speaker; earlier logs and hidden files are not."""
    assert [log.speaker for log in of_folder(folder)] == ["head", "head.ray", "vllm", "worker-1"]


def test_choose(folder: Path) -> None:
    """Without a name all logs are shown but Ray's own; with one, that log only, Ray's as well."""
    logs: tuple[Log, ...] = of_folder(folder)
    assert speakers(choose(logs, None)) == ["head", "vllm", "worker-1"]
    assert speakers(choose(logs, "head.ray")) == ["head.ray"]
    assert speakers(choose(logs, "head")) == ["head"]


def test_choose_on_hosts() -> None:
    """A host's name means all that runs there but Ray's chatter, a program's name that program, a speaker's itself."""
    host = FakeHost(name="gpu.1")
    logs = [HostLog(host, name, "/x", "1") for name in ("gpu.1", "gpu.1.engine", "gpu.1.vllm", "gpu.1.ray")]
    assert speakers(choose(logs, "gpu.1")) == ["gpu.1", "gpu.1.engine", "gpu.1.vllm"]
    assert speakers(choose(logs, "engine")) == ["gpu.1.engine"]
    assert speakers(choose(logs, "gpu.1.ray")) == ["gpu.1.ray"]
    assert speakers(choose(logs, None)) == ["gpu.1", "gpu.1.engine", "gpu.1.vllm"]


def test_unknown_speaker(folder: Path) -> None:
    """A name that nobody has is refused with the nearest one."""
    with pytest.raises(UsageError) as caught:
        choose(of_folder(folder), "worker-2")
    assert (caught.value.what, caught.value.why) == ('no log of "worker-2"', 'did you mean "worker-1"?')


@pytest.mark.parametrize("wanted", [None, "head"])
def test_no_logs(tmp_path: Path, wanted: str | None) -> None:
    """Where no log exists, or no folder, nothing was up yet."""
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(NotRunning, match="there are no logs"):
            choose(of_folder(path), wanted)


def test_read(folder: Path) -> None:
    """Lines come with their speaker, each once, whole, and undecodable bytes do not stop them."""
    logs = [FileLog(name, folder / f"{name}.log") for name in ("head", "vllm")]
    read = together(logs)
    assert read() == [Line("head", "head.log one", END), Line("vllm", "vllm.log one", END)]
    with (folder / "vllm.log").open("ab") as file:
        file.write(b"two \xff\n\nhal")
    assert texts(read()) == [("vllm", "two �"), ("vllm", "")]
    with (folder / "vllm.log").open("ab") as file:
        file.write(b"f\n")
    assert texts(read()) == [("vllm", "half")]
    (folder / "vllm.log").write_text("anew\n")
    assert texts(read()) == [("vllm", "anew")]
    assert FileLog("absent", folder / "absent").read() == []


def test_the_last_lines(folder: Path) -> None:
    """With a tail the first reading has the last lines alone; what comes later is whole."""
    path = folder / "head.log"
    path.write_text("1\n2\n3\n")
    log = FileLog("head", path, 2)
    assert [line.text for line in log.read()] == ["2", "3"]
    with path.open("a") as file:
        file.write("4\n5\n6\n")
    assert [line.text for line in log.read()] == ["4", "5", "6"]
    assert FileLog("head", path, 0).read() == []


def test_merged() -> None:
    """Logs are put together by time; lines of one log keep their order, even where its times fall."""
    one = [Line("a", "1", 10.0), Line("a", "2", 9.0), Line("a", "3", 30.0)]
    two = [Line("b", "1", 9.5), Line("b", "2", 20.0)]
    assert texts(merged([one, two])) == [("b", "1"), ("a", "1"), ("a", "2"), ("b", "2"), ("a", "3")]


def test_follow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Following gives what is there, and what is written later."""
    monkeypatch.setattr("time.sleep", lambda _: (folder / "head.log").write_text("head.log one\ntwo\n"))
    lines = follow(together([FileLog("head", folder / "head.log")]), 1.0)
    assert [next(lines).text, next(lines).text] == ["head.log one", "two"]


def reading(path: str, since: int, tail: str) -> str:
    """The command that reads a log of a host."""
    return f"sh -c {READ} {path} {since} {tail} {LARGEST}"


def test_a_log_of_a_host() -> None:
    """It is read from where it was read to, in whole lines, with the host's own clock and zone."""
    host = FakeHost(name="gpu-1")
    log = HostLog(host, "gpu-1", "logs/agent.log", "5")
    host.replies[reading("logs/agent.log", 0, "5")] = f"40 {END} +0100\n01:05:00 UP x\nhal"
    assert log.read() == [Line("gpu-1", "01:05:00 UP x", END - 300, "gpu-1")]
    host.replies[reading("logs/agent.log", 37, "+1")] = f"50 {END} +0100\nhalf a line\n"
    assert log.read() == [Line("gpu-1", "half a line", END, "gpu-1")]
    host.replies[reading("logs/agent.log", 50, "+1")] = Result((), 3, "", "")
    assert log.read() == []


def test_a_log_of_a_container() -> None:
    """Docker's own times are taken, and what was said at the last moment comes once."""
    host = FakeHost(name="gpu-1")
    log = ContainerLog(host, "gpu-1", "ray-head", "9")
    one, two = "2026-03-01T00:10:00.000000001Z", "2026-03-01T00:10:00.500000000Z"
    host.replies[f"sh -c {SAID} ray-head 9 0"] = f"{one} 01:10:00 UP x\n"
    assert texts(log.read()) == [("gpu-1", "01:10:00 UP x")]
    host.replies[f"sh -c {SAID} ray-head all {one}"] = f"{one} 01:10:00 UP x\n{two} \n{two} more\n"
    assert log.read() == [Line("gpu-1", "", END + 0.5, "gpu-1"), Line("gpu-1", "more", END + 0.5, "gpu-1")]


def test_a_container_that_is_not_there() -> None:
    """A container that was not made yet has no lines; a Docker that does not answer is told in its own words."""
    host = FakeHost(name="gpu-1")
    log = ContainerLog(host, "gpu-1.engine", "vllm", "+1")
    line = f"sh -c {SAID} vllm all 0"
    host.replies[line] = Result((), 1, "Error: No such container: vllm\n", "")
    assert log.read() == []
    host.replies[line] = Result((), 1, "Cannot connect to the Docker daemon\n", "")
    with pytest.raises(HostError) as caught:
        log.read()
    assert caught.value.why == "Cannot connect to the Docker daemon"


def listing() -> str:
    return f"sh -c {LIST} {ROOT}/logs {ROOT}/state/logs"


def test_logs_of_hosts() -> None:
    """Each host's files and containers are found; one that is down is noted once, and the others go on."""
    head, down = FakeHost(name="gpu-1"), FakeHost(name="gpu-2", reachable=False)
    paths = (f"{ROOT}/logs/agent.log", f"{ROOT}/logs/engine.log", f"{ROOT}/state/logs/gpu-1.ray.log")
    head.replies[listing()] = "\n".join(paths) + "\n"
    notes: list[str] = []
    troubles = Troubles(notes.append)
    hosts = {"gpu-1": head, "gpu-2": down}
    logs = of_hosts(hosts, "lab", {"gpu-1": {"agent": "ray-head"}}, 3, troubles)
    assert speakers(logs) == ["gpu-1", "gpu-1", "gpu-1.engine", "gpu-1.ray"]
    assert notes == ["gpu-2 is not read: gpu-2 does not answer"]
    head.replies[reading(paths[1], 0, "3")] = f"3 {END} +0000\nhi\n"
    read = over_ssh(choose(logs, "engine"), hosts, troubles)
    assert texts(read()) == [("gpu-1.engine", "hi")]
    head.reachable = False
    assert (read(), read()) == ([], [])
    head.reachable = True
    head.replies[reading(paths[1], 3, "+1")] = f"3 {END} +0000\n"
    assert read() == []
    assert notes[1:] == ["gpu-1 is not read: gpu-1 does not answer", "gpu-1 is read again"]


def test_hosts_without_logs() -> None:
    """Where no host has a log, nothing was up there; where none can be asked, that is the error."""
    silent = Troubles(lambda _: None)
    with pytest.raises(NotRunning, match="there are no logs of lab on its hosts"):
        of_hosts({"a": FakeHost(name="a", replies={listing(): ""})}, "lab", {}, None, silent)
    with pytest.raises(HostUnreachable):
        of_hosts({"a": FakeHost(name="a", reachable=False)}, "lab", {}, None, silent)
    with pytest.raises(CommandFailed):
        of_hosts({"a": FakeHost(name="a")}, "lab", {}, None, silent)
    assert containers("head") == {"agent": "ray-head", "engine": "vllm"}
    assert containers("worker") == {"agent": "ray-worker"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-f",), "error: -f names a cluster file\nfix: shoal logs --follow "),
        (("--grep", "("), "error: --grep '(' is no regular expression: "),
        (("--since", "soon"), "error: --since 'soon': expected a number with s, m, h or d"),
        (("-f", "absent.yaml"), "absent.yaml"),
    ],
)
def test_wrong_calls(folder: Path, words: tuple[str, ...], said: str) -> None:
    """A call that cannot be meant so is refused with what is expected."""
    done = CliRunner().invoke(main, ["logs", *words], env={"SHOAL_STATE_DIR": str(folder)})
    assert (done.exit_code, said in done.stderr) == (2, True), done.stderr


def test_since_grep_and_order(tmp_path: Path) -> None:
    """Lines of all logs come by time, those before --since and those without --grep's words left out."""
    logs = tmp_path / "local" / "logs"
    logs.mkdir(parents=True)
    (logs / "head.log").write_text("2026-03-01T00:00:01Z one\n2026-03-01T00:00:03Z three\n")
    (logs / "worker-1.log").write_text("2026-03-01T00:00:02Z two\n2026-03-01T00:00:04Z four\n")
    whole = ["head     | one", "worker-1 | two", "head     | three", "worker-1 | four"]
    for words, wanted in (
        ((), whole),
        (("--since", "1772323202"), whole[1:]),
        (("--grep", "t[wh]"), whole[1:3]),
        (("--tail", "1"), whole[2:]),
        (("worker-1", "--tail", "1"), ["four"]),
    ):
        done = CliRunner().invoke(main, ["logs", *words], env={"SHOAL_STATE_DIR": str(tmp_path)})
        lines = [line.replace(line[line.find("2026") : line.find("Z") + 2], "") for line in done.output.splitlines()]
        assert (done.exit_code, lines) == (0, wanted)
