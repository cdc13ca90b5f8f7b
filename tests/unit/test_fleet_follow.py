"""A cluster on other machines while it comes up: watched until it answers, or until it is certain that it will not."""

import itertools
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from tests.conftest import Golden
from tests.unit.fleet_hosts import masked, plan

from shoal.errors import HostUnreachable, ShoalError, StartFailed
from shoal.host.base import Result
from shoal.host.fake import FakeHost
from shoal.host.hand import MARK
from shoal.ops.fleet import follow, reach
from shoal.ops.fleet.lock import Lock
from shoal.plan.fleet_changes import Changes, Move
from shoal.state.status import ClusterState, ClusterStatus, EngineState, EngineStatus, NodeState, NodeStatus
from shoal.ui.fleet_page import page, stands, summary

NODE = NodeStatus(name="gpu-2", role="worker", address="10.0.0.2", state=NodeState.JOINING, detail="joining")
STARTING = ClusterStatus(cluster="lab", state=ClusterState.STARTING, nodes=(NODE,))
READY = ClusterStatus(cluster="lab", state=ClusterState.READY)


class Host(FakeHost):
    """A host on which every program runs, but for the one that has ended."""

    def __init__(self, name: str, ended: str = "") -> None:
        super().__init__(name=name)
        self.ended = ended

    def run(self, argv: object, *, timeout: float, ok: object = (0,), input: object = None) -> Result:
        del timeout, ok
        line = str(input).splitlines()[-1].removeprefix("answer(").removesuffix(")")
        step = json.loads(json.loads(line))["steps"][0]
        units = {unit: {"runs": unit != self.ended} for unit in ("agent", "engine")}
        answer: Any = {"look": {"home": "/", "units": units}, "tail": ["no more memory"], "lock": {}}[step["do"]]
        return Result((), 0, MARK + json.dumps({"answers": [answer], "error": None}), "")


def watch(
    monkeypatch: pytest.MonkeyPatch, told: Iterator[ClusterStatus | ShoalError], ended: str = ""
) -> list[ClusterStatus]:
    """What was shown until it was ready; a second passes at each look."""
    clock = itertools.count()
    monkeypatch.setattr(
        follow, "time", SimpleNamespace(monotonic=lambda: float(next(clock)), time=lambda: 0.0, sleep=lambda _: None)
    )

    def status(*_: object) -> ClusterStatus:
        found = next(told)
        if isinstance(found, ShoalError):
            raise found
        return found

    monkeypatch.setattr(reach, "status", status)
    shown: list[ClusterStatus] = []
    hosts = {"gpu-1": Host("gpu-1"), "gpu-2": Host("gpu-2", ended)}
    follow.until_ready(follow.Watch(plan(), hosts, shown.append, 200.0, Lock(hosts["gpu-1"], "/r", "up")))
    return shown


def test_it_is_shown_until_it_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that does not answer for a moment is asked again."""
    told: list[ClusterStatus | ShoalError] = [HostUnreachable("gpu-1"), STARTING, READY]
    assert watch(monkeypatch, iter(told)) == [STARTING, READY]


def test_the_lock_too_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that does not answer for a moment, just when the lock is to be taken again, is not given up."""
    lost: list[ShoalError] = [HostUnreachable("gpu-1")]

    def take(_: Lock) -> None:
        if lost:
            raise lost.pop()

    monkeypatch.setattr(Lock, "take", take)
    assert watch(monkeypatch, iter([STARTING, READY])) == [STARTING, READY]


def refusal(monkeypatch: pytest.MonkeyPatch, told: Iterator[ClusterStatus | ShoalError], ended: str = "") -> str:
    with pytest.raises(StartFailed) as raised:
        watch(monkeypatch, told, ended)
    return raised.value.why


def test_what_will_not_come_up_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node or an engine that has given up says why, and the wait is over."""
    failed = NODE.model_copy(update={"state": NodeState.FAILED, "detail": "no GPU"})
    engine = EngineStatus(state=EngineState.FAILED, model="m", detail="the breaker is open")
    status = STARTING.model_copy(update={"nodes": (failed,), "engine": engine})
    assert refusal(monkeypatch, iter([status])) == "gpu-2: no GPU; the breaker is open"


def test_a_program_that_has_ended_is_told_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """The head only knows that a node is silent; its host knows why."""
    assert refusal(monkeypatch, itertools.repeat(STARTING), "agent") == "gpu-2: agent has ended: no more memory"


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for is said at the end."""
    assert refusal(monkeypatch, itertools.repeat(STARTING)) == "gpu-2: joining"


def test_a_head_that_is_gone_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a minute without a word, its own error is told."""
    with pytest.raises(HostUnreachable, match="gpu-1 cannot be reached"):
        watch(monkeypatch, itertools.repeat(HostUnreachable("gpu-1 cannot be reached")))


def test_the_page_of_a_plan(golden: Golden) -> None:
    """Each value with its reason, and secrets as references."""
    golden("fleet/page.json", [masked(plan(), line) for line in page(plan())])


def test_what_would_be_done_in_one_line() -> None:
    """Nothing, or what is pushed, switched and started; and where the last command stopped."""
    assert summary(Changes((), (), (), ())) == "nothing to change: every host is as planned"
    planned = Changes(("a", "b"), ("a",), (Move("a", "engine", "w", runs=True),), ())
    assert summary(planned) == "to push: 2 host(s); to switch: 1; to start: engine of a"
    where = {"verb": "up", "stage": "pushing", "release": "abc"}
    assert list(stands(where)) == ["the last `shoal up` came as far as: pushing (release abc)"]
    assert list(stands({})) == []
