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
    assert walk.state == State(Stage.UP, since=1006.0, said=1006.0, was_up=True)


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
def test_a_raylet_that_is_silent_is_suspect_and_then_stopped(rules: Rules) -> None:
    """A raylet that says nothing is suspect within 2 s, and stopped after SHOAL_LOST_AFTER."""
    walk = Walk(rules).up()
    dead = {"head_serving": True, "ray_running": True}
    looks = [(walk.see(**dead), walk.state.node_state(walk.now)) for _ in range(31)]
    assert looks == [((Stage.UP, ()), NodeState.UP)] * 2 + [((Stage.UP, ()), NodeState.SUSPECT)] * 29
    assert walk.see(**dead) == (Stage.BACKOFF, (STOP,))
    assert walk.state.detail == "the raylet has not answered for 30 s"


@pytest.mark.parametrize("rules", [HEAD, WORKER], ids=["head", "worker"])
def test_a_raylet_that_refuses_has_ended(rules: Rules) -> None:
    """A port that refuses is a process that is gone: the node is lost at once, where `ray start` would stay."""
    walk = Walk(rules).up()
    assert walk.see(head_serving=True, ray_running=True, raylet_refuses=True) == (Stage.BACKOFF, (STOP,))
    assert (walk.state.detail, walk.state.node_state(walk.now)) == ("the raylet has ended", NodeState.LOST)


@pytest.mark.parametrize("rules", [HEAD, WORKER], ids=["head", "worker"])
def test_a_raylet_whose_socket_is_gone_is_renewed(rules: Rules) -> None:
    """It answers, but no worker can register with it any more: it is started anew, and that costs a restart."""
    walk = Walk(rules).up()
    assert walk.see(**WELL, socket_trouble="its socket /r/raylet was removed") == (Stage.BACKOFF, (STOP,))
    words = "no worker can register with the raylet: its socket /r/raylet was removed"
    assert (walk.state.detail, walk.state.restarts) == (words, (walk.now,))
    assert walk.back_off().up().state.stage is Stage.UP


CUT = {"ray_running": True, "raylet_serving": True, "head_reason": "no answer within 1 s"}


def test_a_short_flap_costs_nothing() -> None:
    """Ten seconds without the head are a suspect node, and then an untouched one."""
    walk = Walk(WORKER).up()
    assert [walk.see(**CUT) for _ in range(10)] == [(Stage.UP, ())] * 10
    assert walk.state.node_state(walk.now) is NodeState.SUSPECT
    assert (walk.see(**WELL), walk.state.node_state(walk.now)) == ((Stage.UP, ()), NodeState.UP)
    assert (walk.state.restarts, walk.state.rejoins, walk.state.detail) == ((), (), "")


def test_a_worker_that_is_cut_off_fences_itself() -> None:
    """After SHOAL_LOST_AFTER without the head a worker ends its own Ray, says so, and waits for the head at no cost."""
    walk = Walk(WORKER).up()
    assert [walk.see(**CUT)[1] for _ in range(32)] == [()] * 31 + [(STOP,)]
    assert walk.state.detail == "cut off from the head for 30 s: no answer within 1 s"
    assert (walk.state.node_state(walk.now), walk.state.restarts) == (NodeState.LOST, ())
    assert walk.see() == (Stage.WAIT_HEAD, ())


@pytest.mark.parametrize(
    ("seen", "looks", "detail"),
    [
        ({"head_gone": "the head came back as a new cluster"}, 1, "the head came back as a new cluster"),
        (
            {"head_refuses": True, "head_reason": "connection refused"},
            2,
            "the head's GCS has ended: connection refused",
        ),
    ],
)
def test_a_cluster_that_is_gone_is_left_at_once(seen: dict[str, Any], looks: int, detail: str) -> None:
    """A head that is a new cluster, or whose GCS has ended, is left at once, and joined again without a pause."""
    walk = Walk(WORKER).up()
    gone = WELL | {"head_serving": False} | seen
    assert [walk.see(**gone) for _ in range(looks)] == [(Stage.UP, ())] * (looks - 1) + [(Stage.BACKOFF, (STOP,))]
    assert (walk.state.detail, walk.state.until, walk.state.restarts) == (detail, walk.now, ())


def test_a_head_that_keeps_coming_back_is_joined_more_slowly() -> None:
    """Three times within ten minutes a new cluster is joined at once; after that with a growing pause, without end."""
    walk, delays = Walk(WORKER), []
    for _ in range(11):
        walk.up().see(**WELL | {"head_gone": "new"})
        delays.append(walk.state.until - walk.now)
        walk.back_off()
    assert delays == [0, 0, 0, 0.5, 1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize("silent", ["head_serving", "raylet_serving"])
def test_an_answer_in_between_starts_the_silence_again(silent: str) -> None:
    """Silences that are each shorter than SHOAL_LOST_AFTER are nothing, however many there are."""
    walk = Walk(WORKER).up()
    looks = [walk.see(20.0, **WELL | {silent: answer}) for answer in (False, False, True) * 5]
    assert looks == [(Stage.UP, ())] * 15
    assert (walk.state.head_silent, walk.state.raylet_silent) == (None, None)


def test_a_head_restarts_a_gcs_that_hangs_or_has_ended() -> None:
    """A head bears with a slow GCS of its own; one that has ended, or is silent for too long, is started again."""
    walk = Walk(HEAD).up()
    slow = WELL | {"head_serving": False}
    assert [walk.see(**slow)[0] for _ in range(32)] == [Stage.UP] * 31 + [Stage.BACKOFF]
    assert walk.state.detail == "the GCS has not answered for 30 s"
    walk.back_off()
    walk.up()
    assert [walk.see(**slow | {"head_refuses": True})[0] for _ in range(2)] == [Stage.UP, Stage.BACKOFF]
    assert walk.state.detail == "the GCS has ended"


@pytest.mark.parametrize("order", ["leave", "reset"])
def test_orders_close_the_breaker(order: str) -> None:
    """Either order takes an agent that had given up back to work; a reset gives it its whole budget as well."""
    walk = Walk(replace(HEAD, restarts=1))
    walk.see()
    walk.back_off()
    assert walk.see()[0] is Stage.FAILED
    assert walk.see(order=order) == (Stage.BACKOFF, (STOP,))
    assert walk.state.restarts == (() if order == "reset" else (walk.state.restarts[0],))
    assert walk.see() == (Stage.JOIN, (START,))


def test_an_order_to_leave_ends_this_ray_and_joins_anew() -> None:
    """Told to leave, a node that is up stops its Ray and begins again at once; a reset does not touch it."""
    walk = Walk(WORKER).up()
    assert walk.see(**WELL, order="reset") == (Stage.UP, ())
    assert walk.see(**WELL, order="leave") == (Stage.BACKOFF, (STOP,))
    assert walk.see() == (Stage.WAIT_HEAD, ())


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
    assert [walk.see(599), walk.see(**WELL)] == [(Stage.FAILED, ())] * 2


def test_an_open_breaker_lets_one_try_through_after_ten_minutes() -> None:
    """Ten minutes after it gave up the agent tries once; that try's failure opens the breaker again."""
    walk = Walk(replace(HEAD, restarts=2))
    for _ in range(3):
        walk.see()
        walk.back_off()
    assert (walk.state.stage, walk.see(601)) == (Stage.FAILED, (Stage.BACKOFF, ()))
    assert [walk.see(), walk.see()] == [(Stage.JOIN, (START,)), (Stage.FAILED, (STOP,))]


def test_jitter_is_bounded() -> None:
    """Chance makes a pause a quarter shorter or longer, and never longer than the limit."""
    pauses = []
    for dice in (0.0, 1.0):
        walk = Walk(HEAD)
        walk.see(dice=dice)
        pauses.append(walk.state.until - walk.now)
    assert pauses == [0.375, 0.625]


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


def test_a_failed_node_exits_when_it_is_told_to_stop() -> None:
    """A failed agent keeps answering why, and exits when told, with its reason kept."""
    walk = at(Stage.FAILED, HEAD)
    walk.state = replace(walk.state, detail="boom")
    assert [walk.see(), walk.see(stop_requested=True)] == [(Stage.FAILED, ()), (Stage.STOPPED, (EXIT,))]
    assert walk.state.detail == "boom"


def test_what_each_stage_is_to_others() -> None:
    """Every stage has a node state, and only UP is up."""
    assert {stage for stage in Stage if State(stage, 0.0).node_state(0.0) is NodeState.UP} == {Stage.UP}
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
        self.gone = self.order = self.socket = ""
        self.refuses = False
        self.exits = 0
        self.state, actions = first(self.rules, self.now)
        self.act(actions)

    def act(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            if action is START:
                assert not self.ray, "Ray was started while it ran"
                assert not self.stop, "Ray was started after the stop"
                self.ray, self.raylet, self.verified, self.ending, self.socket = True, False, None, False, ""
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
            head_refuses=not self.head and self.refuses,
            head_gone=self.gone if self.ray else "",
            raylet_refuses=self.ray and not self.raylet and self.refuses,
            socket_trouble=self.socket if self.state.stage is Stage.UP else "",
            order=self.order,
        )
        self.order = ""
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

    @rule(gone=st.sampled_from(["", "a new cluster"]), refuses=st.booleans())
    def the_head_is_another(self, gone: str, refuses: bool) -> None:
        self.gone, self.refuses = gone, refuses

    @rule(order=st.sampled_from(["leave", "reset"]))
    def the_supervisor_orders(self, order: str) -> None:
        self.order = order

    @precondition(lambda self: self.ray)
    @rule(serving=st.booleans())
    def raylet_changes(self, serving: bool) -> None:
        self.raylet = serving

    @precondition(lambda self: self.ray)
    @rule()
    def ray_dies(self) -> None:
        self.ray = self.raylet = False

    @precondition(lambda self: self.ray)
    @rule()
    def its_socket_is_removed(self) -> None:
        self.socket = "its socket was removed"

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
        silences = [at for at in (state.head_silent, state.raylet_silent) if at is not None]
        assert all(self.now - at <= self.rules.lost_after for at in silences) or state.stage is not Stage.UP
        assert state.until - state.since <= MAX_BACKOFF or state.stage is not Stage.BACKOFF
        assert self.exits == (state.stage is Stage.STOPPED)

    def teardown(self) -> None:
        """Wherever the walk ended: where all goes well again the node is up again, and a stop leads to STOPPED."""
        if not self.stop:
            self.comes_back()
        self.stop, self.slow = True, False
        for _ in range(5):
            self.look(1.0)
            self.ray = self.ray and not self.ending  # a stop that took long is over at last
        assert (self.state.stage, self.exits) == (Stage.STOPPED, 1)

    def comes_back(self) -> None:
        """No walk leads to a dead end: with a head that serves and a Ray that starts, the node is up in the end."""
        self.slow, self.gone, self.refuses, self.head = False, "", False, True
        self.ray = self.ray and not self.ending
        for _ in range(12):
            # A Ray that died before may use up the budget only now.
            self.order = "reset" if self.state.stage is Stage.FAILED else ""
            self.look(31.0)
            self.head = True
            if self.ray:
                self.raylet = self.verified = True
        assert self.state.stage is Stage.UP


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
