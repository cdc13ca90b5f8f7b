"""The probe reads a tree as it is, in this process and as a program of its own."""

import base64
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from shoal.errors import CommandFailed
from shoal.facts.sources import TABLE, request, wanted
from shoal.host import probe
from shoal.host.base import Result
from shoal.host.fake import FakeHost
from shoal.host.gather import Command, Request, gather, late, program, snapshot, unpacked
from shoal.host.local import LocalHost
from shoal.host.snapshot import Reply, Snapshot


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two devices, one behind a link, with a torn file, a folder that may not be read, a FIFO and a dangling link."""
    real = tmp_path / "devices/0000:01:00.0/mlx5_0"
    (real / "ports/1").mkdir(parents=True)
    (real / "ports/1/state").write_bytes(b"4: ACTIVE")
    (real / "odd").write_bytes(b"caf\xe9\n")
    (real / "device").symlink_to("..")
    (tmp_path / "class").mkdir()
    (tmp_path / "class/mlx5_0").symlink_to("../devices/0000:01:00.0/mlx5_0")
    (tmp_path / "class/mlx5_1").symlink_to("../devices/gone")
    (tmp_path / "devices/0000:01:00.0/vendor").write_text("0x15b3\n")
    os.mkfifo(tmp_path / "class/fifo")
    return tmp_path


def asked(tree: Path, *commands: Command, deadline: float = 20) -> Request:
    """A request for that tree."""
    files = ("class/*/ports/*/state", "class/*/odd", "class/*/device/vendor", "class/fifo", "nowhere/*/x")
    return Request(
        tuple(f"{tree}/{name}" for name in files),
        devices=(f"{tree}/class/fifo*",),
        commands=commands,
        deadline=deadline,
    )


def read(tree: Path, *commands: Command) -> Snapshot:
    return gather(LocalHost(), asked(tree, *commands))


def test_a_tree_is_read_through_its_links(tree: Path) -> None:
    """Files stand at their real place, links lead there, and nothing else was read."""
    taken = read(tree)
    assert taken.read(f"{tree}/class/mlx5_0/ports/1/state") == "4: ACTIVE"
    assert taken.read(f"{tree}/class/mlx5_0/device/vendor") == "0x15b3\n"
    assert taken.read(f"{tree}/class/mlx5_0/odd") == "caf\ufffd\n"
    assert taken.files[f"{tree}/class/fifo"] == ""
    assert taken.list(f"{tree}/class") == ("fifo", "mlx5_0", "mlx5_1")
    assert taken.exists(f"{tree}/class/mlx5_0/ports/2/state") is False
    assert taken.exists(f"{tree}/class/mlx5_0/board_id") is None
    assert (taken.exists(f"{tree}/nowhere"), taken.list(f"{tree}/nowhere")) == (False, ())
    assert abs((taken.asked or 0) - (taken.taken or 9)) < 5


def test_commands_are_answered_or_named(tree: Path) -> None:
    """A program that is missing is 127, one that hangs is killed and named, one that fails has another to ask."""
    shell = ("sh", "-c")
    taken = read(
        tree,
        Command(("no-such-program-here", "x")),
        Command((*shell, "sleep 60"), timeout=0.2),
        Command((*shell, "exit 3"), other=((*shell, "echo second"),)),
        Command((*shell, "printf 'a\\nb\\n'"), keep="b"),
        Command(("echo", "{}"), each=f"{tree}/class/*/ports"),
    )
    assert taken.replies == {
        "no-such-program-here x": Reply(127, "", "no-such-program-here: not found"),
        "sh -c 'sleep 60'": Reply(124, "", "sh -c sleep 60 did not end within 0.2 s"),
        "sh -c 'echo second'": Reply(0, "second\n"),
        "sh -c 'printf '\"'\"'a\\nb\\n'\"'\"''": Reply(0, "b\n"),
        "echo mlx5_0": Reply(0, "mlx5_0\n"),
    }
    assert late(taken) == ("sh -c sleep 60 did not end within 0.2 s",)


def test_secrets_stay_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the environment only names that matter are read, and no secret's value."""
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    monkeypatch.setenv("MY_DIARY", "private")
    taken = gather(LocalHost(), request(("env",)))
    assert "NCCL_DEBUG=INFO\n" in taken.replies["env"].out
    assert "HF_TOKEN=********\n" in taken.replies["env"].out
    assert "private" not in str(taken) and "hf_very_secret" not in str(taken)  # noqa: PT018


def test_the_program_for_other_machines_answers_the_same(tree: Path) -> None:
    """Sent to another Python, it prints what is read in this process."""
    wanted = asked(tree, Command(("echo", "hello")))
    done = subprocess.run(
        [sys.executable, "-I", "-"],
        input=program(wanted.as_dict()),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    host = FakeHost(name="far", replies={"python3 -": Result((), 0, "Welcome!\n" + done.stdout, "")})
    far, near = gather(host, wanted), gather(LocalHost(), wanted)
    assert (far.name, far.files, far.links, far.errors, far.replies, far.looked) == (
        "far",
        near.files,
        near.links,
        near.errors,
        near.replies,
        near.looked,
    )


def packed(value: object) -> str:
    return probe.MARK + base64.b64encode(zlib.compress(json.dumps(value).encode())).decode()


@pytest.mark.parametrize(
    ("reply", "what"),
    [
        (Result((), 127, "", "sh: python3: not found"), "far cannot be read: it has no python3"),
        (Result((), 1, "", "SyntaxError: x"), "far could not be read: python3 ended with code 1"),
        (Result((), 0, "shoal-probe:AAAA", ""), "far could not be read: python3 ended with code 0"),
        (Result((), 0, packed([]), ""), "far could not be read: python3 ended with code 0"),
    ],
)
def test_a_machine_that_cannot_be_read(reply: Result, what: str) -> None:
    """What came back is no answer: one sentence, and no traceback."""
    with pytest.raises(CommandFailed) as caught:
        gather(FakeHost(name="far", replies={"python3 -": reply}), Request())
    assert caught.value.what == what


def test_an_answer_that_is_torn() -> None:
    """What came back among other steps' answers and is not whole is said to be so."""
    whole = packed({}).removeprefix(probe.MARK)
    with pytest.raises(CommandFailed, match="far could not be read: its answer is not whole"):
        unpacked("far", whole[:8])


def test_a_file_that_hangs_is_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel does not hand out in time is given up, and the rest is told."""
    import threading

    never = threading.Event()
    monkeypatch.setattr(probe.Files, "open", lambda self, path: (setattr(self, "at", path), never.wait(30)))
    taken = gather(LocalHost(), asked(tree, deadline=0.5))
    never.set()
    assert taken.errors == {f"{tree}/class/fifo": "ETIMEDOUT"}
    assert late(taken) == (f"{tree}/class/fifo could not be read in time",)
    assert taken.read(f"{tree}/class/mlx5_0/ports/1/state") == "4: ACTIVE"


def test_needs_decide_what_is_read() -> None:
    """A group means all of it; a part means itself and what its group shares; nothing means nothing."""
    assert [row.group for row in wanted(("rdma",))] == ["rdma", "rdma.counters"]
    assert [row.group for row in wanted(("machine.kernel_log",))] == ["machine", "machine.kernel_log"]
    assert wanted(("net.netdevs",))[0].group == "net"
    assert wanted(()) == ()
    assert request(("env",)).files == ()
    assert len(request().commands) > 20
    assert {row.group.partition(".")[0] for row in TABLE} == {
        *("rdma", "net", "gpu", "machine", "container", "docker", "stack", "env")
    }


def test_the_probe_is_old_python() -> None:
    """It compiles as Python 3.6 does: machines in the field have that."""
    import ast

    source = Path(probe.__file__).read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 6))
    assert "from __future__" not in source


def test_an_answer_becomes_a_snapshot() -> None:
    """Field by field."""
    told = {
        "files": {"/a": "1"},
        "links": {},
        "errors": {},
        "replies": {"x": [1, "o", "e"]},
        "looked": ["/a"],
        "taken": 5.0,
    }
    assert snapshot("n", told, asked=4.0) == Snapshot(
        "n", {"/a": "1"}, replies={"x": Reply(1, "o", "e")}, looked=("/a",), taken=5.0, asked=4.0
    )
