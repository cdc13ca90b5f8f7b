"""Checks are chosen, judged and told; one that breaks does not hide the others."""

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result

from shoal.checks.base import Check, Finding, Severity, Status, ok
from shoal.checks.catalogue import CHECKS, EVERY, FLEET_CHECKS
from shoal.checks.run import Choice, Chosen, Gathered, Report, choose, judge, judged, read
from shoal.errors import HostUnreachable, UsageError
from shoal.facts.node import NodeFacts
from shoal.host.capture import pack
from shoal.host.fake import FakeHost
from shoal.host.gather import Request
from shoal.host.snapshot import Reply, Snapshot
from shoal.ui import doctor_page
from shoal.ui.cli import main
from shoal.ui.verbs.doctor import changes

NODE = Snapshot("gx1", {"/proc/meminfo": "MemTotal: 1 kB\n"}, replies={"uname -r": Reply(0, "6.8\n")})


def run(*words: str) -> Result:
    return CliRunner().invoke(main, words)


@pytest.fixture
def kept(tmp_path: Path) -> str:
    """A capture of nearly nothing."""
    file = tmp_path / "gx1.tar"
    file.write_bytes(pack(NODE, "1.0"))
    return str(file)


def finding(status: Status, name: str = "gpu.x", node: str = "gx1") -> Finding:
    return Finding(
        name, "all is well", status, f"seen \x00 {status.value}", "mend it" if status is Status.FAIL else "", node=node
    )


REPORT = Report(
    ("gx1", "gx2"),
    (
        finding(Status.OK),
        finding(Status.FAIL),
        finding(Status.WARN, "net.y", "gx2"),
        finding(Status.UNKNOWN, "cross.z", ""),
    ),
    {"gx3": HostUnreachable("gx3 does not answer", why="no way", fix="ssh gx3")},
    {"gx1": ("nvidia-smi did not end within 15 s",)},
)


def test_ids_are_unique_and_well_formed() -> None:
    """A group, a dot, a name; a positive title; something about why."""
    ids = [check.id for check in EVERY]
    assert len(ids) == len(set(ids)) >= 150
    assert [name for name in ids if not name.replace(".", "", 1).replace("-", "").isalnum() or "." not in name] == []
    assert [check.id for check in EVERY if not check.title or not check.about] == []


def test_every_check_has_its_section() -> None:
    """A finding's link leads to an anchor of the reference."""
    page = (Path(__file__).parents[2] / doctor_page.PAGE).read_text(encoding="utf-8")
    assert [check.id for check in EVERY if f'<a id="{check.id}"></a>' not in page] == []


def test_needs_are_known() -> None:
    """Each need is a group of facts, or a field of one."""
    groups = {"rdma", "net", "gpu", "machine", "container", "docker", "stack", "env", "before"}
    assert [(check.id, need) for check in EVERY for need in check.needs if need.partition(".")[0] not in groups] == []


def test_every_module_of_checks_is_in_the_catalogue() -> None:
    """A module that holds checks of nodes or of several is collected."""
    import importlib
    import pkgutil

    import shoal.checks

    modules = (
        importlib.import_module(f"shoal.checks.{item.name}") for item in pkgutil.iter_modules(shoal.checks.__path__)
    )
    others = {"local", "catalogue", "run"}
    held = [
        check
        for module in modules
        if module.__name__.rpartition(".")[2] not in others
        for name in ("CHECKS", "FLEET_CHECKS")
        for check in getattr(module, name, ())
    ]
    assert {check.id for check in held} == {check.id for check in EVERY}


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        (Choice(), lambda check: True),
        (Choice(only=("gpu",)), lambda check: check.group == "gpu"),
        (Choice(only=("gpu", "host"), ignore=("host",)), lambda check: check.group == "gpu"),
        (Choice(severity=Severity.FATAL), lambda check: check.severity is Severity.FATAL),
    ],
)
def test_checks_are_chosen(choice: Choice, wanted: Callable[[Check[NodeFacts]], bool]) -> None:
    """By group, by id, by severity."""
    chosen = choose(choice)
    assert (*chosen.node, *chosen.fleet) == tuple(check for check in EVERY if wanted(check))  # type: ignore[arg-type]


def test_a_name_that_is_none_is_refused() -> None:
    """With the nearest; and so is a choice that leaves nothing."""
    with pytest.raises(UsageError, match='no check or group "gpus"; did you mean "gpu"'):
        choose(Choice(only=("gpus",)))
    with pytest.raises(UsageError, match="no check is left"):
        choose(Choice(only=("gpu",), ignore=("gpu",)))


def test_only_what_is_needed_is_read() -> None:
    """The needs of the chosen checks, united."""
    request = choose(Choice(only=("env",))).request()
    assert request.files != Chosen(CHECKS, FLEET_CHECKS).request().files
    assert {line.argv[0] for line in choose(Choice(only=("gpu.answers",))).request().commands} >= {"nvidia-smi"}


def test_a_check_that_breaks_is_named() -> None:
    """It is UNKNOWN with the reason, and the next one is heard."""

    def broken(facts: NodeFacts) -> tuple[Status, str, str]:
        raise KeyError("oops")

    checks = (Check("x.a", "a", broken), Check[NodeFacts]("x.b", "b", lambda _: ok("fine")))
    first, second = judged(checks, NodeFacts("n"), "n")
    assert (first.status, first.node) == (Status.UNKNOWN, "n")
    assert first.evidence == "the check itself broke, which is a mistake in shoal: KeyError: 'oops'"
    assert (second.status, second.evidence) == (Status.OK, "fine")


def test_one_host_that_is_away_does_not_keep_the_others() -> None:
    """It is named, the code is 3, and checks of several nodes run."""
    away = FakeHost(name="gx9", reachable=False)
    gathered = read((away,), Request())
    report = judge(Chosen((), FLEET_CHECKS), Gathered((NODE,), gathered.unreachable))
    assert (report.nodes, list(report.unreachable), report.exit_code) == (("gx1",), ["gx9"], 3)
    assert {item.id for item in report.findings} == {check.id for check in FLEET_CHECKS}
    assert judge(Chosen((), FLEET_CHECKS), Gathered((NODE,))).findings == ()


def test_nothing_known_fails_nothing() -> None:
    """A capture that holds nothing is UNKNOWN or skipped throughout, alone or with another."""
    report = judge(Chosen(CHECKS, FLEET_CHECKS), Gathered((Snapshot("a"), Snapshot("b"))))
    assert [item for item in report.findings if item.status in {Status.FAIL, Status.WARN}] == []
    assert [item for item in report.findings if "itself broke" in item.evidence] == []


def test_exit_codes() -> None:
    """A failure is 1; where a host is away the report is not whole: 3."""
    assert REPORT.exit_code == 3
    assert Report(("a",), (finding(Status.FAIL),)).exit_code == 1
    assert Report(("a",), (finding(Status.WARN),)).exit_code == 0


def test_junit_has_a_suite_for_each_node() -> None:
    """Counts agree, and what XML cannot hold is replaced."""
    root = ET.fromstring(doctor_page.junit(REPORT))
    assert [(suite.get("name"), suite.get("tests"), suite.get("failures"), suite.get("errors")) for suite in root] == [
        ("gx1", "2", "1", "0"),
        ("gx2", "1", "0", "0"),
        ("all nodes", "1", "0", "0"),
        ("gx3", "1", "0", "1"),
    ]
    failure = root.find(".//failure")
    assert failure is not None
    assert (failure.get("message"), failure.text) == ("FAIL all is well: seen \ufffd FAIL", "fix: mend it")


def test_short_is_a_line_for_each_finding() -> None:
    """The worst first, then who was not reached, then the sum."""
    assert list(doctor_page.short(REPORT)) == [
        "FAIL gx1 gpu.x: seen \ufffd FAIL",
        "WARN gx2 net.y: seen \ufffd WARN",
        "UNKNOWN cross.z: seen \ufffd UNKNOWN",
        "NO WAY gx3: gx3 does not answer: no way",
        "2 node(s), 1 not reached: 1 FAIL, 1 WARN, 1 UNKNOWN, 1 OK",
    ]


def test_a_machine_cannot_speak_to_the_terminal() -> None:
    """Control sequences in evidence, fix and names are shown as what they are: unprintable."""
    rude = Finding("gpu.x", "t", Status.FAIL, "a\x1b]0;owned\x07b", "c\x1b[2Jd\x9b", node="n\x1b[1m")
    page = "\n".join(doctor_page.page(Report(("a", "b"), (rude,)), 100))
    assert "a\ufffd]0;owned\ufffdb" in page
    assert "c\ufffd[2Jd\ufffd" in page
    assert "n\ufffd[1m  " in page


def test_nodes_that_are_alike_are_told_together() -> None:
    """One finding with their names; one that differs in a word stands alone."""
    nodes = tuple(f"n{place}" for place in range(6))
    same = tuple(finding(Status.WARN, node=node) for node in nodes)
    other = Finding("gpu.x", "all is well", Status.FAIL, "else", node="n9")
    page = list(doctor_page.page(Report(nodes, (*same, other)), 80))
    heads = [line for line in page if "gpu.x" in line]
    assert ["n9" in heads[0], "n0, n1, n2, n3 and 2 more" in heads[1], len(heads)] == [True, True, 2]


def test_changes_are_told() -> None:
    """What became of a finding, and of a host."""
    after = Report(("gx1",), (finding(Status.WARN), finding(Status.OK, "net.y", "gx2")))
    before = Report(("gx1",), (finding(Status.OK), finding(Status.FAIL, "net.y", "gx2")), REPORT.unreachable)
    assert changes(before, after) == [
        "gx1 gpu.x OK -> WARN: seen \x00 WARN",
        "gx2 net.y FAIL -> OK",
        "gx3 is reached again",
    ]


def test_the_verb_judges_a_capture(kept: str) -> None:
    """As lines, short, JSON and JUnit; nothing fails where nearly nothing is known."""
    told = json.loads(run("doctor", "--from", kept, "--json").stdout)
    assert (told["nodes"], told["exit_code"], told["counts"]["FAIL"], len(told["findings"])) == (
        ["gx1"],
        0,
        0,
        len(CHECKS),
    )
    assert run("doctor", "--from", kept, "--short").stdout.splitlines()[-1].startswith("1 node(s): ")
    assert run("doctor", "--from", kept, "--junit").stdout.startswith("<?xml")
    page = run("doctor", "--from", kept, "--from", kept)
    assert page.stdout.splitlines()[-1].startswith("2 node(s): ")
    assert "gx1 (2)" in page.stdout


def test_the_list_and_an_explanation() -> None:
    """One array of all checks; a check's own words."""
    rows = json.loads(run("checks", "list", "--json").stdout)
    assert [row["id"] for row in rows] == [check.id for check in EVERY]
    assert {tuple(row) for row in rows} == {("id", "title", "group", "severity", "scope")}
    first = EVERY[0]
    assert run("doctor", "--explain", first.id).stdout.startswith(f"{first.id}: {first.title}\n\n{first.about}\n")
    assert run("checks", "list").stdout.count("\n") == len(EVERY)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("doctor", "--only", "nothing"), 2),
        (("doctor", "--explain", "gpu.nothing"), 2),
        (("doctor", "--severity", "bad"), 2),
        (("doctor", "--from", "no-such-file"), 2),
        (("capture", "-o", "x.zip"), 2),
        (("capture", "-o", "no/such/folder/x.tar"), 2),
        (("capture",), 2),
    ],
)
def test_wrong_calls(words: tuple[str, ...], code: int) -> None:
    """Each ends with 2 and a sentence."""
    done = run(*words)
    assert done.exit_code == code
    assert "Traceback" not in done.output
