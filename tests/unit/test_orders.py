"""Orders to an agent: who may give them, and what they tell."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from shoal.agent import peers
from shoal.agent.key import bearer, cluster_key, derive, shows
from shoal.agent.lease import LASTS, Lease
from shoal.agent.orders import Node, Orders
from shoal.agent.proof import NcclFiles, Prover, Who
from shoal.agent.ray_executor import RayExecutor
from shoal.agent.talk import Board, talk_routes
from shoal.agent.turns import Turns
from shoal.engine.clear import Cleared, judge
from shoal.host.fake import FakeHost
from shoal.log import EventLog, redactor
from shoal.spec.env import agent_settings
from shoal.state.journal import Entry, Journal
from shoal.state.status import NodeState, NodeStatus

KEY = derive("a token of Ray's")
NODE = NodeStatus(name="w", role="worker", address="10.0.0.2", state=NodeState.UP)


def node_of(folder: Path, take: Callable[[str], None]) -> Node:
    """A node whose Ray was not started."""
    env = {"RAY_MODE": "worker", "VLLM_HOST_IP": "10.0.0.2", "RAY_ADDRESS": "10.0.0.1:6379"}
    log = EventLog(io.StringIO())
    who = Who("w", "10.0.0.2", None, cpu=True, env=env)
    prover = Prover(FakeHost(), who, NcclFiles(folder / "nccl"))
    turns = Turns(FakeHost(), folder / "turn")
    executor = RayExecutor(agent_settings(env), log, prover, lambda: None, lambda pid: None, folder, "w", turns)
    return Node("w", folder, folder, folder / "w.jsonl", executor, take)


class Desk:
    """An agent's orders, and what they led to."""

    def __init__(self, folder: Path, key: str | None) -> None:
        self.taken: list[str] = []
        self.log = EventLog(io.StringIO(), processors=[redactor(["s3cret-value"])])
        (folder / "session_latest" / "logs").mkdir(parents=True)
        (folder / "session_latest" / "logs" / "raylet.out").write_text("it has s3cret-value in it\n")
        journal = folder / "w.jsonl"
        Journal(journal, "w", print).append(Entry(5.0, "w", "up", "words"))
        node = node_of(folder, self.taken.append)
        self.board = Board(30.0)
        routes = (
            *Orders(FakeHost(), node, self.log, lambda: "RANK 1 has s3cret-value").routes(lambda: key),
            *talk_routes(lambda: NODE, self.board, lambda: key, journal),
        )
        self.client = TestClient(Starlette(routes=list(routes)))

    def give(self, order: str, key: str | None = KEY, body: Any = None) -> tuple[int, str]:
        reply = self.client.post(f"/orders/{order}", headers=bearer(key), json=body)
        return reply.status_code, reply.text


ORDERS = ("end", "evidence", "stacks", "ras", "leave", "reset", "lease")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("header", [None, "wrong", KEY[:-1], KEY.upper()])
def test_without_the_key_nothing_happens(tmp_path: Path, order: str, header: str | None) -> None:
    """Who does not show the key gives no order, whichever it is."""
    desk = Desk(tmp_path, KEY)
    assert desk.give(order, header) == (401, "the key of this cluster is missing or wrong\n")
    assert desk.taken == []


@pytest.mark.parametrize("order", ORDERS)
def test_where_there_is_no_key_there_are_no_orders(tmp_path: Path, order: str) -> None:
    """A node without a token takes orders from nobody, and says so."""
    desk = Desk(tmp_path, None)
    code, words = desk.give(order)
    assert (code, words.startswith("orders are off: ")) == (403, True)
    assert desk.taken == []


def test_nccls_own_report_is_told(tmp_path: Path) -> None:
    """What NCCL reports on its job is handed on as it is, secrets masked; and it is part of the evidence."""
    desk = Desk(tmp_path, KEY)
    assert desk.give("ras") == (200, "RANK 1 has ********")
    assert desk.client.post("/orders/evidence", headers=bearer(KEY)).json()["ras.txt"] == "RANK 1 has ********"


def test_orders_reach_the_agent(tmp_path: Path) -> None:
    """To leave and to reset are handed on; to end without a Ray ends nothing, and says so."""
    desk = Desk(tmp_path, KEY)
    assert [desk.give("leave")[0], desk.give("reset")[0], desk.taken] == [200, 200, ["leave", "reset"]]
    assert desk.client.post("/orders/end", headers=bearer(KEY)).json() == {
        "ended": 0,
        "left": [],
        "held": [],
        "shared_memory": [],
    }


def test_evidence_has_no_secret(tmp_path: Path) -> None:
    """Logs, stacks, counters and the journal are shown, with every known secret masked."""
    desk = Desk(tmp_path, KEY)
    told = desk.client.post("/orders/evidence", headers=bearer(KEY)).json()
    assert told["logs/raylet.out"] == "it has ******** in it\n"
    assert {"stacks.txt", "counters.txt", "journal.jsonl"} <= set(told)


def test_beats_are_heard_and_answered(tmp_path: Path) -> None:
    """A beat is answered with the head's own status, and is then among its peers; a wrong one is refused."""
    desk = Desk(tmp_path, KEY)
    reply = desk.client.post("/beat", headers=bearer(KEY), content=NODE.model_dump_json())
    assert NodeStatus.model_validate_json(reply.text) == NODE
    assert desk.client.get("/peers", headers=bearer(KEY)).json() == [NODE.model_dump(mode="json")]
    assert desk.client.post("/beat", headers=bearer(KEY), content=b"{}").status_code == 400
    assert desk.client.post("/beat", headers=bearer(KEY), content=b"x" * (1 << 17)).status_code == 400
    assert desk.client.post("/beat", content=NODE.model_dump_json()).status_code == 401


def test_events_are_told_since_a_moment(tmp_path: Path) -> None:
    """The journal is told to who shows the key, from a moment on."""
    desk = Desk(tmp_path, KEY)
    asked = [desk.client.get(f"/events?since={since}", headers=bearer(KEY)) for since in ("0", "5.5", "x")]
    assert [len(asked[0].json()), asked[1].json(), asked[2].status_code] == [1, [], 400]


def test_the_key_is_made_from_the_token(tmp_path: Path) -> None:
    """The file that Ray reads gives the key; without a token, or with an empty one, there is none."""
    host = FakeHost({"/t": "a token of Ray's\n", "/empty": "\n"})
    assert cluster_key(host, {"RAY_AUTH_TOKEN_PATH": "/t"}) == KEY
    assert [cluster_key(host, env) for env in ({}, {"RAY_AUTH_TOKEN_PATH": "/empty"}, {"RAY_AUTH_MODE": "token"})] == [
        None
    ] * 3
    assert "token" not in KEY
    assert [shows(text, KEY) for text in (f"Bearer {KEY}", f"bearer {KEY}", KEY, "", None)] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_a_lease_has_one_owner() -> None:
    """The first who asks has it while it asks again; another one is told who that is, and gets it afterwards."""
    now = 0.0
    lease = Lease(lambda: now)
    assert lease.ask("1", "engine at a") == (True, "engine at a")
    assert lease.ask("2", "engine at b") == (False, "engine at a")
    now = LASTS
    assert lease.ask("1", "engine at a") == (True, "engine at a")
    now = 2 * LASTS + 0.1
    assert lease.ask("2", "engine at b") == (True, "engine at b")
    assert lease.ask("1", "engine at a") == (False, "engine at b")
    lease.ask("1", "", release=True)
    assert lease.ask("1", "engine at a") == (False, "engine at b")
    lease.ask("2", "", release=True)
    assert lease.ask("1", "engine at a") == (True, "engine at a")


def test_what_agents_answer_is_judged_by_name() -> None:
    """Who still holds a GPU, or cannot be ended, is named with its node; an agent without an answer is not verified."""
    clean = {"ended": 2, "left": [], "held": [], "shared_memory": []}
    answers = {
        "10.0.0.1": clean,
        "10.0.0.2": clean | {"held": ["python (pid 7, 70,000 MiB)"]},
        "10.0.0.3": OSError("x"),
    }
    names = {"10.0.0.1": "head", "10.0.0.2": "w", "10.0.0.3": "v"}
    assert judge(answers, names) == Cleared(
        "on w (10.0.0.2) python (pid 7, 70,000 MiB) holds a GPU", ("v (10.0.0.3): x",)
    )
    assert judge({"10.0.0.1": clean | {"left": ["VLLM::Worker (pid 3)"]}}, names).held == (
        "on head (10.0.0.1) VLLM::Worker (pid 3) cannot be ended"
    )


def test_silence_after_a_beat(tmp_path: Path) -> None:
    """The board shows a node as it said, for as long as its beats are no older than they may be."""
    assert peers.BEAT_EVERY < peers.SUSPECT_AFTER < 2.0
    desk = Desk(tmp_path, KEY)
    desk.board.hear(NODE)
    assert desk.board.view() == (NODE,)
