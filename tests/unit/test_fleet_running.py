"""``restart``, ``events``, ``prove`` and ``autopsy`` with ``-f``: who is asked, what is told, what mends."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.unit.fleet_hosts import PROCESS
from tests.unit.test_snapshot import free_port, serving
from tests.unit.test_status_verb import ASK, ROOT, Machines

from shoal.agent.app import agent_app
from shoal.agent.key import derive
from shoal.bench.proof import Proof
from shoal.engine.app import engine_app, restart_route
from shoal.errors import ConfigError, NotRunning, ShoalError
from shoal.ops import relay, restart
from shoal.ops.fleet import running
from shoal.ops.relay import MARK
from shoal.spec.cluster import parse
from shoal.state.journal import Entry, journal_file
from shoal.state.live import EngineLive
from shoal.state.standing import UnitState
from shoal.state.status import EngineState, EngineStatus, NodeState, NodeStatus
from shoal.ui.cli import main

READY = EngineStatus(state=EngineState.READY, model="m", restarts=1)
RECORD = {
    "run_id": "0", "boot_id": "", "cluster": "lab", "created": 0, "model": "m", "endpoint": "", "serve_url": "",
    "temp_dir": "", "log_dir": "", "api_key_file": "/s/api.key", "nodes": [
        {"name": "gpu-1", "role": "head", "address": "10.0.0.1", "gpus": 1, "agent_url": "http://10.0.0.1:8700"}
    ],
}  # fmt: skip


WISH = {"kind": "", "seconds": 1.0, "expected": 0, "command": []}


class Chair(Machines):
    """An operator before the two hosts, who types ``shoal VERB -f shoal.yaml``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **standings: dict[str, Any]) -> None:
        super().__init__(**standings)
        spec = parse(PROCESS, "shoal.yaml")
        monkeypatch.setattr(running, "open_file", lambda _: (spec, self.hosts))
        monkeypatch.setattr(restart.time, "sleep", lambda _: None)

    def answers(self, name: str, told: Mapping[str, Any]) -> None:
        """What the relay on that host answers."""
        self.hosts[name].replies[ASK] = MARK + json.dumps(dict(told)) + "\n"

    def asked(self, name: str) -> Any:
        """What the relay on that host was asked last."""
        return json.loads(self.hosts[name].inputs[-1])

    def __call__(self, verb: str, *words: str) -> Result:
        result = CliRunner().invoke(main, [verb, "-f", "shoal.yaml", *words], prog_name="shoal")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result


@pytest.fixture
def chair(monkeypatch: pytest.MonkeyPatch) -> Chair:
    return Chair(monkeypatch)


def entry(time: float, node: str, words: str) -> dict[str, Any]:
    return asdict(Entry(time, node, "up", words))


def test_events_of_all_nodes_are_one_story(chair: Chair) -> None:
    """Each host's own journals, merged by time; a host that cannot be read is named, and the others are told."""
    chair.answers("gpu-1", {"events": [entry(1.0, "gpu-1", "first"), entry(3.0, "engine", "third")]})
    chair.answers("gpu-2", {"events": [entry(2.0, "gpu-2", "second")]})
    told = [json.loads(line) for line in chair("events", "--json", "--since", "0.5").stdout.splitlines()]
    assert [(one["node"], one["words"]) for one in told] == [
        ("gpu-1", "first"),
        ("gpu-2", "second"),
        ("engine", "third"),
    ]
    assert (chair.asked("gpu-1")["events"], chair.asked("gpu-2")["record"]["api_key_file"]) == (
        0.5,
        f"{ROOT}/state/api.key",
    )
    chair.hosts["gpu-2"].reachable = False
    rest = chair("events", "--json")
    assert (len(rest.stdout.splitlines()), rest.stderr) == (2, "gpu-2 is not read: gpu-2 does not answer\n")


def test_the_relay_reads_its_nodes_own_journal(tmp_path: Path) -> None:
    """What lies on the disk beside the key, since a moment: no agent has to answer for it."""
    path = journal_file(tmp_path, "gpu-1")
    path.parent.mkdir()
    path.write_text("".join(Entry(at, "gpu-1", "up", "it is").line() + "\n" for at in (1.0, 2.0)))
    record = RECORD | {"api_key_file": str(tmp_path / "api.key")}
    assert relay.answer({"record": record, "events": 1.5}) == {"events": [entry(2.0, "gpu-1", "it is")]}


def test_a_restart_is_ordered_on_the_head(chair: Chair, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said who is asked, each new state is told, a line that breaks meanwhile too; the end is a token."""
    states = iter([
        READY,
        READY.model_copy(update={"state": EngineState.DRAINING}),
        None,
        READY.model_copy(update={"restarts": 2}),
    ])  # fmt: skip
    asked: list[str] = []

    def engine(head: Any, plan: Any) -> EngineStatus:
        del plan
        if (found := next(states)) is None:
            head.reachable = False
            head.run((), timeout=1)
        assert found is not None
        return found

    monkeypatch.setattr(running.reach, "engine", engine)
    monkeypatch.setattr(running.reach, "restart", lambda head, plan, how: asked.append(how))
    done = chair("restart", "--now")
    assert (done.exit_code, asked) == (0, ["now"])
    assert done.stdout.splitlines() == [
        "restart (now): asked of the supervisor on gpu-1",
        "draining",
        "gpu-1 does not answer",
        "ready",
        "ready: a token was produced",
    ]


def test_an_order_goes_through_the_relay(chair: Chair) -> None:
    """The order is one question to the head; what refuses it there is told here, with its own exit code."""
    far = running.by_head(Path("shoal.yaml"))
    chair.answers("gpu-1", {"ordered": True})
    far.order("rolling")
    assert chair.asked("gpu-1")["restart"] == "rolling"
    error = {"what": "the supervisor does not answer", "why": "refused", "fix": "shoal status", "kind": "NotRunning"}
    chair.answers("gpu-1", {"error": error})
    done = chair("restart")
    assert (done.exit_code, done.stderr.splitlines()) == (
        4,
        ["error: the supervisor does not answer", "why: refused", "fix: shoal status -f shoal.yaml"],
    )


def test_a_wrong_key_is_mended_by_handing_it_over() -> None:
    """Who shows another cluster's key is told what hands the right one over."""
    with pytest.raises(ShoalError) as met, running.of_file(Path("my cluster.yaml")):
        raise ShoalError("the supervisor answers 401", why="the key of this cluster is missing or wrong", fix="x")
    assert met.value.fix == "shoal up -f 'my cluster.yaml'   # hands the keys over again"


@pytest.mark.parametrize(
    ("fix", "mended"),
    [
        ("shoal status   # which nodes are up", "shoal status -f c.yaml   # which nodes are up"),
        ("shoal up --local, or --address HOST:PORT", "shoal up -f c.yaml, or --address HOST:PORT"),
        ("shoal logs -f c.yaml", "shoal logs -f c.yaml"),
        ("shoal prove --bytes 4G -- x", "shoal prove -f c.yaml --bytes 4G -- x"),
        ("ls -ld /x", "ls -ld /x"),
    ],
)
def test_a_fix_names_the_file(fix: str, mended: str) -> None:
    """What mends a cluster of this machine is worded for the file, once."""
    with pytest.raises(ConfigError) as met, running.of_file(Path("c.yaml")):
        raise ConfigError("wrong", fix=fix)
    assert met.value.fix == mended


def test_the_head_proves(chair: Chair) -> None:
    """Rows, verdict and exit code are the head's; what it said on the way goes to standard error."""
    found = Proof("nothing", "one node", (), ())
    chair.answers("gpu-1", {"proof": {"found": asdict(found), "said": ["8 long answers"]}})
    done = chair("prove", "--json", "--traffic", "bench", "--seconds", "3")
    page = {"verdict": "nothing", "words": "one node", "nodes": [], "rows": [], "proven": False}
    assert (done.exit_code, json.loads(done.stdout)) == (1, page)
    assert done.stderr.splitlines()[1:] == ["8 long answers"]
    assert chair.asked("gpu-1")["prove"] == {"kind": "bench", "seconds": 3.0, "expected": 0, "command": []}


def test_an_autopsy_is_asked_of_who_can_ask(chair: Chair, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The head's page; where ssh does not reach the head, a worker's. It is written where it was wanted."""
    chair.answers("gpu-2", {"page": "# Autopsy\n"})
    chair.hosts["gpu-1"].reachable = False
    assert chair("autopsy").stdout == "# Autopsy\n"
    chair("autopsy", "-o", str(tmp_path / "page.md"))
    assert (tmp_path / "page.md").read_text() == "# Autopsy\n"
    ended = {"units": {"agent": UnitState(runs=False)}}
    down = Chair(monkeypatch, gpu_1=ended, gpu_2=ended)("autopsy")
    assert (down.exit_code, down.stderr.splitlines()[0]) == (4, "error: lab is down: no agent runs")


@pytest.mark.parametrize("verb", ["restart", "prove"])
def test_nothing_is_asked_of_a_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    """No release, no agent, another head, no way to the host: each by name, with what brings it up."""
    said = []
    for standing in ({"plan": ""}, {"units": {}}):
        done = Chair(monkeypatch, gpu_1=standing)(verb)
        said.append((done.exit_code, *done.stderr.splitlines()))
    chair = Chair(monkeypatch)
    chair.hosts["gpu-1"].reachable = False
    done = chair(verb)
    assert (done.exit_code, done.stderr.splitlines()[0]) == (3, "error: gpu-1 does not answer")
    up = "fix: shoal up -f shoal.yaml"
    assert said == [
        (NotRunning.exit_code, "error: gpu-1 has no release of lab", up),
        (NotRunning.exit_code, "error: lab is down: no agent runs on gpu-1", up),
    ]


def test_an_older_release_does_not_know_the_question(chair: Chair) -> None:
    """What a relay of an earlier version answers is no answer: what is to be done is told."""
    chair.answers("gpu-1", {"status": {}})
    done = chair("prove")
    assert (done.exit_code, done.stderr.splitlines()[1:]) == (
        3,
        [
            "error: gpu-1: shoal relay answers, but not as one of this version",
            "why: 1 validation error for dict[str,any]",
            "fix: shoal up -f shoal.yaml   # brings this version there",
        ],
    )


def test_the_relay_says_what_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error there comes back with its kind, and without a traceback."""
    monkeypatch.setattr(restart.OPENER, "open", lambda *_, **__: (_ for _ in ()).throw(OSError("refused")))
    told = relay.answer({"record": RECORD | {"serve_url": "http://10.0.0.1:8701"}, "engine": True})
    assert told == {
        "error": {
            "what": "the supervisor at http://10.0.0.1:8701 does not answer",
            "why": "refused",
            "fix": "shoal status",
            "kind": "NotRunning",
        }
    }


async def about_a_real_one(tmp_path: Path, token: str, *questions: dict[str, Any]) -> list[dict[str, Any]]:
    """What the relay answers beside a supervisor and an agent that know a key, with the token that lies there."""
    (tmp_path / "ray.token").write_text(token)
    port, address = free_port(), "127.0.0.1"
    taken: list[str] = []

    def restarts(how: str) -> bool:
        taken.append(how)
        return True

    async def status() -> EngineStatus:
        return READY.model_copy(update={"restarts": len(taken)})

    routes = (restart_route(restarts, lambda: derive("right")),)
    head = NodeStatus(name="gpu-1", role="head", address=address, state=NodeState.UP, gpus=1)
    apps = {
        "127.0.0.3": engine_app(status, lambda: EngineLive(engine=READY, at=1.0), lambda: "", routes),
        address: agent_app(lambda: head),
    }
    node = {"name": "gpu-1", "role": "head", "address": address, "gpus": 1, "agent_url": f"http://{address}:{port}"}
    key = {"api_key_file": str(tmp_path / "api.key"), "serve_url": f"http://127.0.0.3:{port}", "nodes": [node]}
    async with serving(port, apps):
        record = {"record": RECORD | key}
        return [await asyncio.to_thread(relay.answer, record | question) for question in questions]


@pytest.mark.enable_socket
async def test_the_supervisor_takes_the_order_for_the_key(tmp_path: Path) -> None:
    """Beside a real endpoint the relay gives the order with the key of its node's token, and tells the engine."""
    told = await about_a_real_one(tmp_path, "right", {"restart": "now"}, {"engine": True})
    assert [told[0], told[1]["engine"]["restarts"]] == [{"ordered": True}, 1]


@pytest.mark.enable_socket
async def test_the_supervisor_refuses_another_key(tmp_path: Path) -> None:
    """The answer to a wrong key is an error with the supervisor's words."""
    told = await about_a_real_one(tmp_path, "wrong", {"restart": "now"})
    error = {"what": "the supervisor answers 401", "why": "the key of this cluster is missing or wrong"}
    assert told == [{"error": error | {"fix": "shoal status", "kind": "ShoalError"}}]


@pytest.mark.enable_socket
async def test_an_agent_that_tells_nothing_is_named(tmp_path: Path) -> None:
    """The page has the engine's state and who told nothing; a proof needs every node's counters."""
    page, proof = await about_a_real_one(tmp_path, "right", {"autopsy": True}, {"prove": WISH})
    assert "engine ready" in page["page"]
    assert "127.0.0.1 told nothing" in page["page"]
    assert (proof["error"]["kind"], proof["error"]["what"]) == ("HostUnreachable", "not every node tells its counters")
