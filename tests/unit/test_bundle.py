"""A support archive: what is gathered, what is left out, and that no secret stands in its bytes."""

import base64
import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import pytest
from click.testing import CliRunner

from shoal.errors import NotRunning
from shoal.host import capture, collect
from shoal.host.base import Result
from shoal.host.fake import FakeHost
from shoal.host.snapshot import Reply, Snapshot
from shoal.log import MASK
from shoal.ops import bundle as ops
from shoal.ops import bundle_places
from shoal.ops.bundle import Cluster, Place, taken_from
from shoal.render.bundle import Bundle, assemble, pack, page
from shoal.ui.cli import main

KEY = "kJ8-Zq_0rT5yBn2"
WANTED = {"commands": {}, "secrets": ["*.key", "*.token"], "most": 10, "room": 1000}
CLUSTER = """\
cluster: pair
runtime: compose
hosts:
  - {name: a, ssh: me@a}
  - name: b
serving: {api-key: env:MY_KEY}
"""


def test_what_is_collected(tmp_path: Path) -> None:
    """Ends of regular files are taken; secrets come apart; caches, links and what is no text are left."""
    for name, data in {
        "logs/a.log": b"0123456789abcdef",
        "state/api.key": b"secret\n",
        "cache/big": b"x",
        "shoal.pyz": b"PK",
        "core": b"a\0b",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    told = collect.collect({**WANTED, "folders": {"x": str(tmp_path), "none": str(tmp_path / "none")}})
    assert told == {
        "files": {"x/logs/a.log": base64.b64encode(b"6789abcdef").decode()},
        "left": {"x/core": "it is no text", "x/state/api.key": "it is a secret"},
        "secrets": ["secret\n"],
    }


def test_room_and_commands(tmp_path: Path) -> None:
    """What is beyond the room of a node is named; a command's end is kept, and one that fails says so."""
    (tmp_path / "a").write_text("12345")
    (tmp_path / "b").write_text("67890")
    commands = {"said": [sys.executable, "-c", "print('a' * 20)"], "gone": ["/nosuch"]}
    told = collect.collect({**WANTED, "folders": {"": str(tmp_path)}, "room": 5, "commands": commands})
    files = {name: base64.b64decode(data) for name, data in told["files"].items()}
    assert files == {
        "a": b"12345",
        "said": b"a" * 9 + b"\n",
        "gone": b"/nosuch: [Errno 2] No such file or directory: '/nosuch'\n",
    }
    assert told["left"] == {"b": "there was no room for more"}


def test_a_file_that_goes_meanwhile_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that runs renames and removes files while they are listed."""
    (tmp_path / "a").write_text("12345")
    listed = [(str(tmp_path), [], ["a", "gone"])]
    monkeypatch.setattr(os, "walk", lambda _: iter(listed))
    told = collect.collect({**WANTED, "folders": {"": str(tmp_path)}})
    assert (list(told["files"]), told["left"]) == (["a"], {})


def test_a_secret_is_known_without_room(tmp_path: Path) -> None:
    """Logs may fill the room before its secrets come: these are read all the same, to be taken out of the logs."""
    (tmp_path / "a").write_text("12345")
    (tmp_path / "b.key").write_text("secret")
    told = collect.collect({**WANTED, "folders": {"": str(tmp_path)}, "room": 5})
    assert (told["secrets"], told["left"]) == (["secret"], {"b.key": "it is a secret"})


def test_secrets_are_known_from_everywhere() -> None:
    """A secret of one file is taken out of all: of an environment file also a short one, by its name."""
    files = {
        ".env": b"HF_TOKEN='it is, a secret'\nSHORT_TOKEN=abc\n",
        "logs/a.log": b"loading with it is, a secret; abc\n",
        f"logs/{KEY}.log": f"key {KEY}".encode(),
    }
    made = assemble(files, {"l": f"/x/{KEY}"}, [KEY + "\n"])
    assert made == Bundle(
        {
            ".env": f"HF_TOKEN='{MASK}'\nSHORT_TOKEN={MASK}\n".encode(),
            "logs/a.log": f"loading with {MASK}; abc\n".encode(),
            f"logs/{MASK}.log": f"key {MASK}".encode(),
        },
        {"l": f"/x/{MASK}"},
        {},
        6,
    )


def test_a_name_that_leads_out_is_left_out() -> None:
    """What a host sends under a name that would be unpacked elsewhere is named and left out: by .., /, or a link."""
    files = {"nodes/a/x": b"1", "nodes/a/../../../x": b"2", "/etc/x": b"3", "nodes/a/link/x": b"4", "nodes/a/..b": b"5"}
    made = assemble(files, {"nodes/a/link": "/etc", "nodes/../../link": "x"}, [])
    assert (made.files, made.links) == ({"nodes/a/x": b"1", "nodes/a/..b": b"5"}, {"nodes/a/link": "/etc"})
    why = "its name leads out of the archive"
    assert made.left == dict.fromkeys(("nodes/a/../../../x", "/etc/x", "nodes/a/link/x", "nodes/../../link"), why)


def test_the_page() -> None:
    """The page says how many values were masked, what was left out, and who was not reached."""
    text = page(
        Bundle({}, {}, {"a/core": "it is no text"}, 7), cluster="x", version="1", taken="now", lost=("b: it is down",)
    )
    assert text.startswith("A support archive of the cluster x, made by shoal 1 at now.\n")
    assert "in 7 place(s) now stands ********" in text
    assert text.endswith("\nNot reached:\n  b: it is down\n\nLeft out:\n  a/core: it is no text\n")


def test_the_archive() -> None:
    """One folder, for its owner alone; links stay links; the same content gives the same bytes."""
    packed = pack({"a/b": b"x"}, {"l": "../y"}, "top", 5.0)
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        assert [(one.name, one.mode, one.mtime, one.linkname) for one in tar] == [
            ("top/a/b", 0o600, 5, ""),
            ("top/l", 0o644, 5, "../y"),
        ]
    assert packed == pack({"a/b": b"x"}, {"l": "../y"}, "top", 5.0)


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor reads the same little of every machine, with a secret on a command line."""

    def gather(host: FakeHost, request: object) -> Snapshot:
        replies = {"ps -ef": Reply(0, f"vllm serve m --api-key {KEY}\n")}
        return Snapshot(host.name, {"/etc/hostname": host.name}, {"/sys/class/net/a": f"../{KEY}"}, {}, replies)

    monkeypatch.setattr(ops, "gather", gather)


def program(answer: dict[str, object]) -> Result:
    """What the program over there prints."""
    told = base64.b64encode(zlib.compress(json.dumps(answer).encode())).decode()
    return Result(("python3", "-"), 0, f"welcome\n{collect.MARK}{told}\n", "")


@pytest.mark.usefixtures("captured")
def test_planted_secrets_are_nowhere_in_the_archive(tmp_path: Path) -> None:
    """Planted in files, logs, command lines, links and names of two nodes, no secret stands in the archive's bytes."""
    token, hub = "0f" * 32, "hf_AbCdEfGhIjKlMnOpQr"
    log = f"start {KEY} {token}\nAuthorization: Bearer {token}\n{json.dumps({'argv': ['--hf-token', hub]})}\n"
    answer = {
        "files": {
            "logs/agent.log": base64.b64encode(log.encode()).decode(),
            "processes.txt": base64.b64encode(f"PID ARGS\n1 vllm --api-key {KEY}\n2 bash -x\n".encode()).decode(),
            "release/.env": base64.b64encode(f"MY_PASSWORD=pa ss:{KEY}\nHF_TOKEN={hub}\n".encode()).decode(),
        },
        "left": {"state/api.key": "it is a secret"},
        "secrets": [f"{KEY}\n", f"{token}\n"],
    }
    hosts = [FakeHost(name=name, replies={"python3 -": program(answer)}) for name in ("a", "b")]
    places = [Place(host.name, host, {"logs": "~/logs"}) for host in hosts]
    down = Place("c", FakeHost(name="c", reachable=False), {})
    notes: list[str] = []
    cluster = Cluster("pair", [*places, down], {"plan/shoal.yaml": f"# {hub}".encode()}, ["of-the-environment-1"])
    made, lost = ops.make(cluster, tmp_path / "out.tar.gz", notes.append, 0.0)
    data = gzip.decompress((tmp_path / "out.tar.gz").read_bytes())
    assert [secret for secret in (KEY, token, hub, "pa ss") if secret.encode() in data] == []
    assert MASK.encode() in data
    assert (lost, sorted(notes)) == (("c: c does not answer",), ["a: 6 files", "b: 6 files"])
    assert made.left == {f"nodes/{name}/state/api.key": "it is a secret" for name in ("a", "b")}
    assert (tmp_path / "out.tar.gz").stat().st_mode & 0o777 == 0o600
    assert made.files["nodes/a/processes.txt"] == f"PID ARGS\n1 vllm --api-key {MASK}\n".encode()
    # It is a capture of both nodes as well.
    assert [(one.name, dict(one.files)) for one in capture.load(tmp_path / "out.tar.gz")] == [
        ("a", {"/etc/hostname": "a"}),
        ("b", {"/etc/hostname": "b"}),
    ]


@pytest.mark.usefixtures("captured")
def test_a_node_whose_python_fails() -> None:
    """A node without python3 is told by its own words."""
    host = FakeHost(name="a", replies={"python3 -": Result(("python3",), 127, "", "sh: python3: not found")})
    with pytest.raises(ops.CommandFailed) as caught:
        taken_from(Place("a", host, {}))
    assert (caught.value.what, caught.value.why) == ("a could not be read", "sh: python3: not found")


def test_the_places_of_a_file(tmp_path: Path) -> None:
    """Each host gives its release, logs and state, the head its engine's container too; keys are known by reference."""
    file = tmp_path / "shoal.yaml"
    file.write_text(CLUSTER)
    desk = tmp_path / "state" / "clusters" / "pair"
    desk.mkdir(parents=True)
    (desk / "api.key").write_text("the-key-1\n")
    (desk / "plan.json").write_text("{}")
    env = {"SHOAL_STATE_DIR": str(tmp_path / "state"), "MY_KEY": KEY, "HF_TOKEN": "hub-1"}
    cluster = bundle_places.of_file(file, env)
    root = "~/.local/share/shoal/pair"
    tail = ("docker", "logs", "--timestamps", "--tail", "20000")
    assert [(place.name, dict(place.folders)) for place in cluster.places] == [
        (name, {"release": f"{root}/current", "logs": f"{root}/logs", "state": f"{root}/state"}) for name in "ab"
    ]
    assert dict(cluster.places[0].commands) == {
        "logs/ray-head.log": (*tail, "ray-head"),
        "logs/vllm.log": (*tail, "vllm"),
        "docker/ps.txt": ("docker", "ps", "-a"),
        "docker/inspect.json": ("docker", "inspect", "ray-head", "vllm"),
    }
    assert dict(cluster.files) == {"plan/plan.json": b"{}", "plan/shoal.yaml": CLUSTER.encode()}
    assert sorted(cluster.secrets) == sorted(["the-key-1\n", "hub-1", KEY])


def test_wrong_calls(tmp_path: Path) -> None:
    """Nothing to gather, and a name that is no archive's, are refused; nothing is written."""
    with pytest.raises(NotRunning, match="there is nothing to gather"):
        bundle_places.of_this_machine({"SHOAL_STATE_DIR": str(tmp_path)})
    (tmp_path / "local").mkdir()
    done = CliRunner().invoke(main, ["bundle", "-o", "x.zip"], env={"SHOAL_STATE_DIR": str(tmp_path)})
    assert (done.exit_code, done.stdout) == (2, "")
    assert "x.zip: expected a name that ends with .tar.gz" in done.stderr


def test_the_program_runs_by_itself(tmp_path: Path) -> None:
    """What is sent to another machine runs there by python3 alone."""
    (tmp_path / "a").write_text("x")
    source = Path(collect.__file__).read_text()
    request = json.dumps({**WANTED, "folders": {"": str(tmp_path)}})
    program = f"{source}\nanswer({json.dumps(request)})\n"
    done = subprocess.run([sys.executable, "-I", "-"], input=program, capture_output=True, text=True, check=True)
    host = FakeHost(replies={"python3 -": done.stdout})
    told = ops._far(host, {})
    assert told == {"files": {"a": base64.b64encode(b"x").decode()}, "left": {}, "secrets": []}
