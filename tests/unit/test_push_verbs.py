"""What `shoal push-model` and `shoal push-image` say, and what they refuse before they ask anybody."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from shoal.errors import CommandFailed, HostUnreachable, PreconditionFailed
from shoal.host.base import Result
from shoal.host.fake import FakeHost
from shoal.host.tied import MARK, TIED, tied
from shoal.ops.push import hub, image
from shoal.ops.push.aim import addresses, models
from shoal.ops.push.model import Wish, push_model
from shoal.ops.push.transfer import Outcome, Row
from shoal.spec.cluster import parse
from shoal.ui.cli import main
from shoal.ui.push_view import Bars, Quiet, finish, rate, shown

SPEC = parse("cluster: lab\nhosts:\n- {name: a, fabric: 10.0.0.1}\n- {name: b, fabric: 10.0.0.2}\n", "shoal.yaml")
LOST = HostUnreachable("b cannot be reached", why="no cable", fix="ssh b")
DONE = Outcome(("a",), {"b": LOST}, 3_000_000, {"a": 2_000_000, "b": 0}, 4.0)


def replied(argv: str, code: int, out: str = "", err: str = "") -> dict[str, Result]:
    return {argv: Result(tuple(argv.split()), code, out, err)}


# What is said.


def test_the_end_names_who_has_it_and_who_has_not(capsys: pytest.CaptureFixture[str]) -> None:
    """Three lines, then each host's error with its fix; the exit code is the first error's."""
    code = finish({}, "model     /models/x", DONE, as_json=False)
    told = capsys.readouterr()
    assert (code, told.out.splitlines()) == (
        3,
        ["model     /models/x", "the same  on 1 of 2 host(s): a", "moved     0.00 GB to 1 host(s) in 4.0 s, 0 MB/s"],
    )
    assert told.err.splitlines() == ["error: b cannot be reached", "why: no cable", "fix: ssh b"]


def test_the_end_as_a_document(capsys: pytest.CaptureFixture[str]) -> None:
    """All of it as JSON."""
    assert finish({"model": "m"}, "", DONE, as_json=True) == 3
    assert json.loads(capsys.readouterr().out) == {
        "schema_version": 1,
        "model": "m",
        "done": ["a"],
        "failed": {"b": {"what": "b cannot be reached", "why": "no cable", "fix": "ssh b"}},
        "moved": {"a": 2_000_000, "b": 0},
        "seconds": 4.0,
    }


def test_a_rate_is_of_what_was_moved() -> None:
    """The most that one host took, over the time until all had it; what was there is no speed."""
    moved = Outcome(("a", "b"), {}, 0, {"a": 3 * 10**9, "b": 10**9}, 10.0)
    none = Outcome(("a",), {}, 0, {"a": 0}, 1.0)
    assert (rate(moved), rate(none)) == ("3.00 GB to 2 host(s) in 10.0 s, 300 MB/s", "nothing had to be moved")


def test_bars_begin_anew_when_a_host_begins_to_take(capsys: pytest.CaptureFixture[str]) -> None:
    """Looking and taking are two bars, of which one is shown; a note stands above them."""
    with Bars() as bars:
        bars.note("looking")
        for state, held in (("looks", 5), ("takes", 0), ("takes", 7), ("whole", 10)):
            bars.moving([Row("gpu-1", held, 10, state, "")])
        tasks = [(task.description, task.completed, task.fields["words"]) for task in bars._progress.tasks]
    assert tasks == [("gpu-1", 10, "has it")]
    assert "looking" in capsys.readouterr().err


def test_an_interruption_says_what_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C ends with 130, without a traceback."""
    with pytest.raises(SystemExit) as ended, shown(as_json=True):
        raise KeyboardInterrupt
    assert (ended.value.code, "the next push goes on with it" in capsys.readouterr().err) == (130, True)


@pytest.mark.parametrize("verb", ["push-model", "push-image"])
def test_a_cluster_file_that_is_missing_is_told(verb: str, tmp_path: Path) -> None:
    """The file's name, and no traceback."""
    done = CliRunner().invoke(main, [verb, "-f", str(tmp_path / "none.yaml")])
    assert (done.exit_code, "none.yaml" in done.output, "Traceback" in done.output) == (2, True, False)


# What is refused.


def test_an_image_named_by_digest_is_refused() -> None:
    """An image that was loaded has none; a tag is asked for."""
    with pytest.raises(PreconditionFailed, match=r"named by its digest") as refused:
        image.push_image(image.Wish(SPEC, "x/y@sha256:1"), {}, {}, Quiet())
    assert refused.value.fix.startswith("docker tag x/y@sha256:1 x/y:pushed")


def test_an_image_for_another_machine_is_refused() -> None:
    """It would be loaded, and would not run: the hosts that it does not fit are named."""
    ask = "docker version --format {{.Server.Arch}}"
    hosts = {name: FakeHost(replies={ask: arch}, name=name) for name, arch in (("a", "arm64\n"), ("b", "amd64\n"))}
    with pytest.raises(PreconditionFailed, match=r"x:1 is made for arm64, and does not run on b \(amd64\)") as refused:
        image._same_machine({"Architecture": "arm64"}, "x:1", hosts)
    assert refused.value.fix == "docker pull --platform linux/amd64 x:1   # then push it"


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        (replied("docker image inspect -- x", 0, '[{"Id": "sha256:1"}]'), {"Id": "sha256:1"}),
        (replied("docker image inspect -- x", 1, "[]", "Error: No such image: x"), None),
    ],
)
def test_an_image_is_there_or_not(reply: dict[str, Result], found: dict[str, str] | None) -> None:
    """Docker's answer, or that it knows none of that name."""
    assert image.inspect(FakeHost(replies=reply), "x") == found


def test_a_docker_that_does_not_answer_is_told() -> None:
    """What it said last, and what to look at."""
    reply = replied("docker image inspect -- x", 1, "", "Cannot connect to the Docker daemon at unix:///x.")
    with pytest.raises(CommandFailed, match=r"fake has no Docker that answers\nwhy: Cannot connect"):
        image.inspect(FakeHost(replies=reply), "x")


def test_a_damaged_model_is_not_pushed(tmp_path: Path) -> None:
    """What is wrong with the folder is told before any host is asked."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m/config.json").write_text("{")
    hosts = {"a": FakeHost(name="a", reachable=False)}
    with pytest.raises(PreconditionFailed, match=r"m is not a whole model"):
        push_model(Wish(SPEC, str(tmp_path / "m")), hosts, {"SHOAL_CACHE_DIR": str(tmp_path)}, Quiet())


def test_a_model_lies_where_the_containers_see_it() -> None:
    """The cluster's own folder, or the one that its file names."""
    other = SPEC.model_copy(update={"model_cache": "/data/models"})
    assert (models(SPEC), models(other)) == ("~/.local/share/shoal/lab/models", "/data/models")


def test_one_host_needs_no_address() -> None:
    """Nobody takes anything from it; of several the file's addresses count."""
    hosts: dict[str, Any] = {name: FakeHost(name=name) for name in ("a", "b")}
    assert (addresses(SPEC, {"a": hosts["a"]}), addresses(SPEC, hosts)) == ({}, {"a": "10.0.0.1", "b": "10.0.0.2"})


# Smaller parts.


def test_a_tied_command_that_was_not_run_is_an_error_of_the_host() -> None:
    """Without its code it never ended; with it, the code is the caller's."""
    argv = f"sh -c {TIED} {MARK} 9 true"
    ran = tied(FakeHost(replies={argv: f"out\n\n{MARK}3\n"}), ["true"], timeout=9)
    assert (ran.code, ran.out) == (3, "out")
    with pytest.raises(CommandFailed):
        tied(FakeHost(replies={argv: Result((), 255, "", "gone")}), ["true"], timeout=9)


def test_a_literal_is_read_from_any_offset() -> None:
    """A small file is given out of memory."""
    piece = hub.literal("a", b"hello")
    assert piece.read is not None
    assert (piece.file, b"".join(piece.read(2))) == (("a", 5, hashlib.sha256(b"hello").hexdigest()), b"llo")


def test_the_hub_is_not_asked_where_that_is_forbidden() -> None:
    """HF_HUB_OFFLINE says so, and the message too."""
    with pytest.raises(PreconditionFailed, match=r"neither this machine nor any host has org/m, and HF_HUB_OFFLINE"):
        hub.listing("org/m", {"HF_HUB_OFFLINE": "1"})
