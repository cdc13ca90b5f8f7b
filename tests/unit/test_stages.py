"""The agent's state machine: the paths it is meant to walk, and what no walk may do."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shoal.agent.stages import (
    MAX_BACKOFF,
    NODE_STATE,
    RESTART_WINDOW,
    Action,
    Observation,
    Rules,
    Stage,
    State,
    first,
    said,
    step,
)
from shoal.state.status import NodeState

WORKER = Rules(is_head=False, join_timeout=120.0, restarts=2)
HEAD = replace(WORKER, is_head=True)
# Ray runs and all answer.
WELL: dict[str, Any] = {"head_serving": True, "ray_running": True, "raylet_serving": True}
QUIET = Observation(
    now=0.0, head_serving=False, head_reason="refused", ray_running=False, ray_tail="", raylet_serving=False
)
Seen = tuple[Stage, tuple[Action, ...]]
STOP, START, VERIFY, DRAIN, EXIT = Action.STOP_RAY, Action.START_RAY, Action.VERIFY, Action.DRAIN, Action.EXIT


@dataclass
class Walk:
    """An agent that is shown one observation after the other, a second apart."""

    rules: Rules
    state: State = field(init=False)
    began: tuple[Action, ...] = field(init=False)
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.state, self.began = first(self.rules, self.now)

    def see(self, after: float = 1.0, **what: Any) -> Seen:
        self.now += after
        self.state, actions = step(self.state, replace(QUIET, now=self.now, **what), self.rules)
        return self.state.stage, actions

    def up(self) -> "Walk":
        """Walk to UP."""
        while self.state.stage is not Stage.UP:
            assert self.see(**WELL, verified=True)[0] is not Stage.FAILED
        return self

    def back_off(self) -> "Walk":
        """Wait until the back-off is over."""
        self.see(MAX_BACKOFF)
        return self


def test_a_worker_waits_joins_and_is_verified() -> None:
    """A worker starts Ray when the head serves, verifies when its raylet serves, and is up when that holds."""
    walk = Walk(WORKER)
    assert (walk.state.stage, walk.began) == (Stage.WAIT_HEAD, ())
    assert [
        walk.see(),
        walk.see(head_serving=True),
        walk.see(head_serving=True, ray_running=True),
        walk.see(**WELL),
        walk.see(**WELL),
        walk.see(**WELL, verified=True),
        walk.see(**WELL, verified=True),
    ] == [
        (Stage.WAIT_HEAD, ()),
        (Stage.JOIN, (START,)),
        (Stage.JOIN, ()),
        (Stage.VERIFY, (VERIFY,)),
        (Stage.VERIFY, ()),
        (Stage.UP, ()),
        (Stage.UP, ()),
    ]
    assert walk.state == State(Stage.UP, since=1006.0, said=1006.0)


def test_a_head_starts_at_once() -> None:
    """A head waits for nobody: it starts Ray, and verifies when its own GCS and raylet serve."""
    walk = Walk(HEAD)
    assert (walk.state.stage, walk.began) == (Stage.JOIN, (START,))
    assert [
        walk.see(ray_running=True),
        walk.see(ray_running=True, head_serving=True),
        walk.see(**WELL),
        walk.see(**WELL, verified=True),
    ] == [(Stage.JOIN, ()), (Stage.JOIN, ()), (Stage.VERIFY, (VERIFY,)), (Stage.UP, ())]


def test_a_worker_waits_for_its_head_as_long_as_it_takes() -> None:
    """Waiting for the head has no end, costs no restart, and says why it waits."""
    walk = Walk(WORKER)
    assert walk.see(1e6, head_reason="connection refused") == (Stage.WAIT_HEAD, ())
    assert (walk.state.detail, walk.state.restarts) == ("waiting for the head: connection refused", ())


@pytest.mark.parametrize("rules", [HEAD, WORKER], ids=["head", "worker"])
def test_a_ray_that_ended_is_started_again(rules: Rules) -> None:
    """When Ray has ended its remains are stopped, and after the back-off the node joins again."""
    walk = Walk(rules).up()
    assert walk.see(head_serving=True, ray_tail="raylet aborted") == (Stage.BACKOFF, (STOP,))
    assert (walk.state.detail, walk.state.restarts) == ("Ray ended: raylet aborted", (walk.now,))
    back = [walk.see(0.4, head_serving=True), walk.see(0.1, head_serving=True)]
    again = [(Stage.BACKOFF, ()), (Stage.JOIN, (START,)) if rules.is_head else (Stage.WAIT_HEAD, ())]
    assert back == again
    assert walk.up().state.restarts == (walk.state.restarts[0],)


@pytest.mark.parametrize("rules", [HEAD, WORKER], ids=["head", "worker"])
def test_a_raylet_that_is_silent_is_given_three_looks(rules: Rules) -> None:
    """A raylet that does not answer while `ray start` stays is stopped at the third look, and not before."""
    walk = Walk(rules).up()
    dead = {"head_serving": True, "ray_running": True}
    assert [walk.see(**dead) for _ in range(3)] == [(Stage.UP, ()), (Stage.UP, ()), (Stage.BACKOFF, (STOP,))]
    assert walk.state.detail == "the raylet does not answer"


def test_a_head_that_is_gone_is_given_three_looks() -> None:
    """A worker whose head does not answer stops its Ray at the third look and waits for the head again."""
    walk = Walk(WORKER).up()
    gone = {"ray_running": True, "raylet_serving": True, "head_reason": "no answer within 1 s"}
    assert [walk.see(**gone) for _ in range(3)] == [(Stage.UP, ()), (Stage.UP, ()), (Stage.BACKOFF, (STOP,))]
    assert walk.state.detail == "the head does not answer: no answer within 1 s"
    assert walk.see() == (Stage.WAIT_HEAD, ())


@pytest.mark.parametrize("silent", ["head_serving", "raylet_serving"])
def test_an_answer_in_between_starts_the_count_again(silent: str) -> None:
    """Two looks without an answer, then one with: nothing happened, however often."""
    walk = Walk(WORKER).up()
    looks = [walk.see(**WELL | {silent: answer}) for answer in (False, False, True) * 5]
    assert looks == [(Stage.UP, ())] * 15
    assert (walk.state.head_misses, walk.state.raylet_misses) == (0, 0)


def test_a_head_does_not_watch_itself_from_outside() -> None:
    """A head that is up does not leave because its own GCS is slow to answer."""
    walk = Walk(HEAD).up()
    assert [walk.see(**WELL | {"head_serving": False}) for _ in range(5)] == [(Stage.UP, ())] * 5


@pytest.mark.parametrize(
    ("seen", "detail"),
    [
        ({"ray_tail": "no such option"}, "ray start ended: no such option"),
        ({}, "ray start ended: it said nothing"),
        ({"ray_running": True, "after": 121.0, "ray_tail": "x"}, "no raylet within 120 s: x"),
    ],
)
def test_a_join_that_fails_is_tried_again(seen: dict[str, Any], detail: str) -> None:
    """A `ray start` that ends, or does not get anywhere in time, is stopped and told."""
    walk = Walk(HEAD)
    assert walk.see(**seen) == (Stage.BACKOFF, (STOP,))
    assert walk.state.detail == detail


@pytest.mark.parametrize(
    ("seen", "detail"),
    [
        ({"ray_tail": "x"}, "Ray ended while it was checked: x"),
        (WELL | {"verified": False, "verify_reason": "0 GPU(s), expected 1"}, "0 GPU(s), expected 1"),
    ],
)
def test_a_node_that_is_not_as_it_should_be_is_tried_again(seen: dict[str, Any], detail: str) -> None:
    """A Ray that ends while it is checked, or that does not pass the check, is stopped and told."""
    walk = Walk(HEAD)
    walk.see(**WELL)
    assert walk.see(**seen) == (Stage.BACKOFF, (STOP,))
    assert walk.state.detail == detail


def test_nothing_starts_before_the_old_ray_has_ended() -> None:
    """A back-off that is over waits for a Ray that is still ending."""
    walk = Walk(HEAD).up()
    walk.see()
    assert walk.see(100, ray_running=True) == (Stage.BACKOFF, ())
    assert walk.see() == (Stage.JOIN, (START,))


@pytest.mark.parametrize("budget", [0, 1, 3])
def test_the_breaker_opens_when_the_restarts_are_used_up(budget: int) -> None:
    """After the budgeted restarts within ten minutes the next fault is the last, and Ray stays stopped."""
    walk = Walk(replace(HEAD, restarts=budget))
    for _ in range(budget):
        assert walk.see() == (Stage.BACKOFF, (STOP,))
        walk.back_off()
    assert walk.see(ray_tail="boom") == (Stage.FAILED, (STOP,))
    assert walk.state.detail == f"ray start ended: boom; gave up after {budget} restarts within 10 minutes"
    assert [walk.see(1e6), walk.see(**WELL)] == [(Stage.FAILED, ())] * 2


def test_faults_of_long_ago_do_not_count() -> None:
    """Restarts older than ten minutes are forgotten, so a fault now and then never opens the breaker."""
    walk = Walk(HEAD)
    for _ in range(10):
        walk.see(RESTART_WINDOW)
        assert (walk.state.stage, walk.state.restarts) == (Stage.BACKOFF, (walk.now,))
        walk.back_off()


def test_the_back_off_doubles_up_to_its_limit() -> None:
    """Each restart waits twice as long as the one before, half a minute at most."""
    walk, delays = Walk(replace(HEAD, restarts=9)), []
    for _ in range(9):
        walk.see()
        delays.append(walk.state.until - walk.now)
        walk.back_off()
    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def at(stage: Stage, rules: Rules) -> Walk:
    """An agent in a stage."""
    walk = Walk(replace(rules, restarts=0 if stage is Stage.FAILED else 2))
    walk.state = replace(walk.state, stage=stage, until=walk.now + 5)
    return walk


WITH_RAY = {Stage.JOIN, Stage.VERIFY, Stage.UP}


@pytest.mark.parametrize("stage", [stage for stage in Stage if stage not in {Stage.DRAIN, Stage.STOPPED, Stage.FAILED}])
@pytest.mark.parametrize("rules", [HEAD, WORKER], ids=["head", "worker"])
def test_a_stop_ends_in_stopped_from_every_stage(stage: Stage, rules: Rules) -> None:
    """Told to stop, the node leaves, a worker in the cluster by a drain, and exits once Ray has ended."""
    walk = at(stage, rules)
    running = WELL if stage in WITH_RAY else {}
    drains = stage is Stage.UP and not rules.is_head
    assert walk.see(**running, stop_requested=True) == (Stage.DRAIN, (DRAIN,) if drains else (STOP,))
    if drains:
        assert walk.see(**WELL, stop_requested=True) == (Stage.DRAIN, ())
        assert walk.see(**WELL, stop_requested=True, drained=True) == (Stage.DRAIN, (STOP,))
        assert walk.see(**WELL, stop_requested=True, drained=True) == (Stage.DRAIN, ())
    assert walk.see(stop_requested=True, drained=drains) == (Stage.STOPPED, (EXIT,))
    assert walk.see(stop_requested=True) == (Stage.STOPPED, ())


def test_a_worker_without_its_head_leaves_without_a_drain() -> None:
    """A worker that cannot reach the head has nobody to ask for a drain."""
    walk = Walk(WORKER).up()
    assert walk.see(**WELL | {"head_serving": False}, stop_requested=True) == (Stage.DRAIN, (STOP,))


def test_a_failed_node_stays_until_it_is_told_to_stop() -> None:
    """A failed agent keeps answering why, and exits when told, with its reason kept."""
    walk = at(Stage.FAILED, HEAD)
    walk.state = replace(walk.state, detail="boom")
    assert [walk.see(), walk.see(stop_requested=True)] == [(Stage.FAILED, ()), (Stage.STOPPED, (EXIT,))]
    assert walk.state.detail == "boom"


def test_what_each_stage_is_to_others() -> None:
    """Every stage has a node state, and only UP is up."""
    assert {stage for stage in Stage if NODE_STATE[stage] is NodeState.UP} == {Stage.UP}
    assert set(NODE_STATE) == set(Stage)


def test_what_was_said_is_remembered() -> None:
    """Telling people changes nothing but the moment of it."""
    state = State(Stage.UP, 1.0)
    assert said(state, 7.0) == replace(state, said=7.0)


class World(RuleBasedStateMachine):
    """A machine on which Ray does what it is told, late or never, and dies when it likes."""

    @initialize(is_head=st.booleans(), restarts=st.integers(0, 3))
    def begin(self, is_head: bool, restarts: int) -> None:
        self.rules = Rules(is_head=is_head, join_timeout=60.0, restarts=restarts)
        self.now = 0.0
        self.ray = self.raylet = self.head = self.drained = self.stop = self.slow = self.ending = False
        self.verified: bool | None = None
        self.exits = 0
        self.state, actions = first(self.rules, self.now)
        self.act(actions)

    def act(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            if action is START:
                assert not self.ray, "Ray was started while it ran"
                assert not self.stop, "Ray was started after the stop"
                self.ray, self.raylet, self.verified, self.ending = True, False, None, False
            elif action is STOP:
                self.ray, self.ending = self.ray and self.slow, self.ray and self.slow
            elif action is DRAIN:
                self.drained = True
            elif action is EXIT:
                assert not self.ray or self.slow, "Ray was left running"
                self.exits += 1

    @rule(after=st.sampled_from([0.2, 1.0, 20.0, 61.0, 700.0]))
    def look(self, after: float) -> None:
        """Time passes and the agent takes a step."""
        self.now += after
        seen = Observation(
            now=self.now,
            head_serving=self.head,
            head_reason="" if self.head else "refused",
            ray_running=self.ray,
            ray_tail="",
            raylet_serving=self.raylet and self.ray,
            verified=self.verified,
            verify_reason="not as it should be",
            stop_requested=self.stop,
            drained=self.drained,
        )
        before = self.state
        self.state, actions = step(before, seen, self.rules)
        self.act(actions)
        if before.stage is Stage.STOPPED:
            assert (self.state, actions) == (before, ())
        if self.state.stage is Stage.UP and before.stage is not Stage.UP:
            assert (before.stage, self.verified, self.ray) == (Stage.VERIFY, True, True)

    @rule(serving=st.booleans())
    def head_changes(self, serving: bool) -> None:
        self.head = serving

    @precondition(lambda self: self.ray)
    @rule(serving=st.booleans())
    def raylet_changes(self, serving: bool) -> None:
        self.raylet = serving

    @precondition(lambda self: self.ray)
    @rule()
    def ray_dies(self) -> None:
        self.ray = self.raylet = False

    @precondition(lambda self: self.ray)
    @rule(verdict=st.booleans())
    def the_check_answers(self, verdict: bool) -> None:
        self.verified = verdict

    @rule()
    def all_goes_well_for_a_while(self) -> None:
        """Without this, random walks seldom get as far as UP."""
        for _ in range(4):
            self.head = True
            self.look(31.0)
            if self.ray:
                self.raylet = self.verified = True

    @rule(slow=st.booleans())
    def stopping_takes_long(self, slow: bool) -> None:
        self.slow = slow

    @rule()
    def somebody_says_stop(self) -> None:
        self.stop = True

    @invariant()
    def the_budget_is_kept(self) -> None:
        state = self.state
        assert len(state.restarts) <= self.rules.restarts
        assert max(state.head_misses, state.raylet_misses) < 3
        assert state.until - state.since <= MAX_BACKOFF or state.stage is not Stage.BACKOFF
        assert self.exits == (state.stage is Stage.STOPPED)

    def teardown(self) -> None:
        """From wherever the walk ended, a stop leads to STOPPED, with one EXIT, in a few looks."""
        self.stop, self.slow = True, False
        for _ in range(5):
            self.look(1.0)
            self.ray = self.ray and not self.ending  # a stop that took long is over at last
        assert (self.state.stage, self.exits) == (Stage.STOPPED, 1)


World.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestAnyWalk = World.TestCase


def test_a_fatal_line_ends_the_join_at_once() -> None:
    """A process of Ray's that died is a reason to stop, long before `ray start` gives up asking for it."""
    walk = Walk(HEAD)
    stage, actions = walk.see(ray_running=True, ray_fault="gcs_server: Unsupported GCS storage type: x")
    assert (stage, actions) == (Stage.BACKOFF, (STOP,))
    assert walk.state.detail == "Ray failed: gcs_server: Unsupported GCS storage type: x"


def test_a_failed_agent_stops_ray_before_it_leaves() -> None:
    """Told to stop while Ray still runs, an agent that had given up ends Ray first."""
    walk = Walk(replace(HEAD, restarts=0))
    walk.see(ray_tail="boom")
    assert walk.see(ray_running=True, stop_requested=True) == (Stage.FAILED, (STOP,))
    assert walk.see(stop_requested=True) == (Stage.STOPPED, (EXIT,))
