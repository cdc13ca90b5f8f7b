"""How a bring-up is shown."""

import io
import json
import re

import pytest
from rich.console import Console
from rich.live import Live

from shoal.engine.client import Answer
from shoal.ops.bringup import Ready
from shoal.state.run import NodeRecord, RunRecord
from shoal.state.status import ClusterState, ClusterStatus, EngineState, EngineStatus, NodeState, NodeStatus
from shoal.ui.observers import Json, Plain, Terminal, choose, seconds

HEAD = NodeStatus(name="head", role="head", address="127.0.0.1", state=NodeState.UP, stage="UP", gpus=1)
WORKER = NodeStatus(
    name="worker-1",
    role="worker",
    address="127.0.0.2",
    state=NodeState.WAITING,
    stage="WAIT_HEAD",
    detail="no route to [127.0.0.1/8]",
)
ENGINE = EngineStatus(
    state=EngineState.STARTING, model="smollm2", phase="weights", phases={"gate": 1.2, "weights": 3.0}
)
STARTING = ClusterStatus(cluster="local", state=ClusterState.STARTING, nodes=(HEAD, WORKER), engine=ENGINE)
UP = STARTING.model_copy(
    update={
        "state": ClusterState.READY,
        "nodes": (HEAD, WORKER.model_copy(update={"state": NodeState.UP, "stage": "UP", "detail": ""})),
        "engine": ENGINE.model_copy(update={"state": EngineState.READY, "phase": ""}),
    }
)
RECORD = RunRecord(
    run_id="0",
    boot_id="",
    cluster="local",
    created=0.0,
    model="smollm2",
    endpoint="http://127.0.0.1:8000/v1",
    serve_url="http://127.0.0.1:8701",
    temp_dir="/t",
    log_dir="/l",
    api_key_file="/home/user/[a]/api.key",
    nodes=(NodeRecord(name="head", role="head", address="127.0.0.1", gpus=1, agent_url="http://127.0.0.1:8700"),),
)
READY = Ready(RECORD, UP, "What is the capital of France?", Answer(" Paris [/b].\n", 8, 0.5))
SUMMARY = {
    "question": "What is the capital of France?",
    "answer": "Paris [/b].",
    "start": "gate 1 s  weights 3 s",
    "speed": "8 tokens in 0.5 s, 16 tokens/s",
    "endpoint": "http://127.0.0.1:8000/v1",
    "model": "smollm2",
    "page": "http://127.0.0.1:8700/",
    "API key": "in /home/user/[a]/api.key",
    "stop": "shoal down",
}


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What was printed since the last call, without the seconds."""
    return [re.sub(r"^ *\d+\.\d s  ", "", line) for line in capsys.readouterr().out.splitlines()]


def test_phases() -> None:
    """Phases are told with their seconds, and the current one is marked."""
    assert seconds(ENGINE) == "gate 1 s  weights 3 s..."
    assert seconds(ENGINE.model_copy(update={"phase": ""})) == "gate 1 s  weights 3 s"


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Plain output has a line for each change, and none where nothing has changed."""
    with Plain(detached=True) as plain:
        plain.note("preparing the model")
        plain.status(STARTING)
        assert lines(capsys) == [
            "shoal     preparing the model",
            "head      127.0.0.1 UP",
            "worker-1  127.0.0.2 WAIT_HEAD  no route to [127.0.0.1/8]",
            "engine    starting weights",
        ]
        plain.status(STARTING)
        assert lines(capsys) == []
        plain.status(UP)
        assert lines(capsys) == ["worker-1  127.0.0.2 UP", "engine    ready"]


def test_plain_summary(capsys: pytest.CaptureFixture[str]) -> None:
    """The plain summary has everything that one needs, a line each."""
    Plain(detached=True).ready(READY)
    expected = [f"  {name:<9} {value}" for name, value in SUMMARY.items()]
    assert lines(capsys) == ["", "shoal is ready: 2 node(s), one endpoint", *expected]


def test_attached_stops_by_key(capsys: pytest.CaptureFixture[str]) -> None:
    """An attached bring-up says that Ctrl-C stops it."""
    Plain(detached=False).ready(READY)
    assert lines(capsys)[-1] == "  stop      Ctrl-C, or: shoal down"


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON output has one object per line: notes, changed statuses, and the answer."""
    with Json() as observer:
        observer.note("preparing\nthe model")
        observer.status(STARTING)
        observer.status(STARTING)
        observer.status(UP)
        observer.ready(READY)
    assert [json.loads(line) for line in lines(capsys)] == [
        {"event": "note", "message": "preparing\nthe model"},
        {"event": "status", "status": STARTING.model_dump(mode="json")},
        {"event": "status", "status": UP.model_dump(mode="json")},
        {
            "event": "ready",
            "endpoint": "http://127.0.0.1:8000/v1",
            "model": "smollm2",
            "api_key_file": "/home/user/[a]/api.key",
            "question": "What is the capital of France?",
            "answer": " Paris [/b].\n",
            "tokens": 8,
            "seconds": 0.5,
            "tokens_per_second": 16.0,
            "status": UP.model_dump(mode="json"),
        },
    ]


def test_json_status_is_a_document(capsys: pytest.CaptureFixture[str]) -> None:
    """A status event holds a whole status document."""
    Json().status(UP)
    assert ClusterStatus.model_validate(json.loads(capsys.readouterr().out)["status"]) == UP


def terminal(width: int) -> tuple[Terminal, Console]:
    console = Console(file=io.StringIO(), record=True, width=width, force_terminal=True)
    shown = Terminal(detached=True)
    shown._console = console
    shown._live = Live(console=console, auto_refresh=False, transient=True)
    return shown, console


@pytest.mark.parametrize("width", [20, 60, 120])
def test_terminal(width: int) -> None:
    """The table and the summary fit a terminal of any width, and what was said stands there as it was said."""
    shown, console = terminal(width)
    with shown:
        shown.note("preparing [/the] model")
        shown.status(STARTING)
        shown.ready(READY)
    text = console.export_text()
    assert {"shoal is ready", "Paris [/b].", "in /home/user/[a]/api.key"} <= set(
        re.findall(r"shoal is ready|Paris \[/b\]\.|in /home\S+", text.replace("\n", " "))
    )


@pytest.mark.parametrize("word", ["[bold]", "[/bold]", "a[/x]b"])
def test_names_are_no_markup(word: str) -> None:
    """Names with square brackets stand in the table as they are."""
    shown, console = terminal(120)
    odd = UP.model_copy(
        update={"nodes": (HEAD.model_copy(update={"name": word}),), "engine": ENGINE.model_copy(update={"model": word})}
    )
    with shown:
        shown.ready(Ready(RECORD, odd, "?", Answer("!", 1, 1.0)))
    assert console.export_text().count(word) == 2


def test_choose() -> None:
    """JSON where it was asked for, lines where standard output is no terminal."""
    assert isinstance(choose(as_json=True, detached=False), Json)
    assert isinstance(choose(as_json=False, detached=False), Plain)
