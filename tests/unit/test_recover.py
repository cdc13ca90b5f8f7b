"""The supervisor's decisions: the paths they are meant to take, and what no sequence of observations may lead to."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from shoal.engine.recover import COOL_DOWN, START_SILENCE, Action, Restart, Rules, Seen, Stage, State, first, step
from shoal.engine.show import VIEW, shown
from shoal.state.status import EngineState

RULES = Rules(restarts=2, drain_timeout=60.0)
CLEAR, LAUNCH, DRAIN, SAVE, END, RENEW, EXIT = Action
LOST = {"lost": "the Ray of w (10.0.0.2) has ended"}
Next = tuple[Stage, tuple[Action, ...]]


@dataclass
class Walk:
    """A supervisor that is shown one observation after the other."""

    rules: Rules = RULES
    now: float = 1000.0
    state: State = field(default_factory=lambda: first(1000.0))

    def see(self, after: float = 1.0, **what: Any) -> Next:
        self.now += after
        self.state, actions = step(self.state, replace(Seen(self.now, log_moved=self.now), **what), self.rules)
        return self.state.stage, actions

    def serve(self) -> "Walk":
        while self.state.stage is not Stage.SERVE:
            self.see(100.0, token=True, done=True)
        return self


def test_from_nothing_to_tokens() -> None:
    """The gate first, then a look whether the GPUs are free, then the launch, and only a token makes it serve."""
    walk = Walk()
    assert [
        walk.see(gate="w is joining"),
        walk.see(gate="w is joining"),
        walk.see(unchecked=True),
        walk.see(unchecked=True),
        walk.see(unchecked=True, done=True),
        walk.see(),
        walk.see(),
        walk.see(token=True),
        walk.see(),
    ] == [
        (Stage.GATE, ()),
        (Stage.GATE, ()),
        (Stage.CLEAR, (CLEAR,)),
        (Stage.CLEAR, ()),
        (Stage.GATE, ()),
        (Stage.START, (LAUNCH,)),
        (Stage.START, ()),
        (Stage.SERVE, ()),
        (Stage.SERVE, ()),
    ]


def test_the_gate_waits_without_end() -> None:
    """After a power cut hosts come back in any order: the gate waits for days, and says for whom."""
    walk = Walk()
    walk.see()
    assert walk.see(1e6, gate="w does not answer") == (Stage.GATE, ())
    assert walk.state.detail == "w does not answer"


def test_gpus_that_somebody_holds_are_named_and_looked_at_again() -> None:
    """A start is refused by name while somebody else holds the GPUs, and goes on by itself when they are free."""
    walk = Walk()
    walk.see()
    walk.see(unchecked=True)
    held = "on w (10.0.0.2) python (pid 7, 70,000 MiB) holds a GPU"
    assert walk.see(unchecked=True, done=True, held=held) == (Stage.BACKOFF, ())
    assert (walk.state.detail, shown(walk.state)) == (f"the GPUs are not free: {held}", EngineState.WAITING)
    assert [walk.see(5.0, unchecked=True), walk.see(unchecked=True)] == [(Stage.GATE, ()), (Stage.CLEAR, (CLEAR,))]


@pytest.mark.parametrize("what", [LOST, {"ending": "vLLM ended (code 0): x"}, {"wedged": "wedged: no token"}])
def test_every_fault_saves_evidence_ends_everything_and_starts_again(what: dict[str, str]) -> None:
    """A lost node, a server that ended and a wedge are treated alike: evidence, end, pause, gate."""
    walk = Walk().serve()
    assert [walk.see(**what), walk.see(**what), walk.see(done=True), walk.see(0.1), walk.see(0.2, done=True)] == [
        (Stage.SAVE, (SAVE,)),
        (Stage.SAVE, ()),
        (Stage.END, (END,)),
        (Stage.END, ()),
        (Stage.BACKOFF, ()),
    ]
    why = next(iter(what.values()))
    assert (walk.state.why, walk.state.detail, walk.state.restarts) == (why, f"{why}; starting again in 0.2 s", 1)
    assert [walk.see(), walk.see()] == [(Stage.GATE, ()), (Stage.START, (LAUNCH,))]


def test_the_delay_counts_from_the_end_s_beginning() -> None:
    """Where ending and verifying took longer than the delay, nothing is waited for."""
    walk = Walk().serve()
    assert [walk.see(**LOST), walk.see(done=True), walk.see(7.0, done=True)][-1] == (Stage.BACKOFF, ())
    assert walk.state.until == walk.now


def test_evidence_never_holds_the_engine_down() -> None:
    """Evidence that does not come within its limit is given up for the restart."""
    walk = Walk().serve()
    walk.see(**LOST)
    assert [walk.see(19.0), walk.see(2.0)] == [(Stage.SAVE, ()), (Stage.END, (END,))]


def test_a_start_that_says_nothing_hangs() -> None:
    """A start whose log stands still for a quarter of an hour is ended; one that tells of progress is not."""
    walk = Walk()
    walk.see()
    walk.see()
    assert walk.see(1e5) == (Stage.START, ())
    silent = walk.now
    assert walk.see(START_SILENCE + 1, log_moved=silent) == (Stage.SAVE, (SAVE,))


def test_the_breaker_and_its_three_ways_out() -> None:
    """Too many ends leave it down with the way out in words; an order, ten minutes, or a stop take it from there."""

    def broken() -> Walk:
        walk = Walk().serve()
        for _ in range(3):
            walk.see(**LOST)
            walk.see(done=True)
            walk.see(done=True)
            if walk.state.stage is Stage.BACKOFF:
                for _ in range(4):
                    walk.see(2.0)
                walk.see(token=True)
        return walk

    walk = broken()
    assert walk.state.stage is Stage.FAILED
    assert walk.state.detail.endswith(
        "(2 restarts within 10 minutes); mend the cause, then: shoal restart, or shoal restart -f FILE"
    )
    assert walk.see(COOL_DOWN - 10) == (Stage.FAILED, ())
    assert walk.see(20.0) == (Stage.GATE, ())
    assert broken().see(restart=Restart.DRAIN) == (Stage.GATE, ())
    stopped = broken()
    assert [stopped.see(stop=True), stopped.see(stop=True, done=True)] == [
        (Stage.END, (END,)),
        (Stage.STOPPED, (EXIT,)),
    ]


def test_what_a_restart_would_repeat_waits_for_somebody() -> None:
    """A wrong argument is not tried again by the clock, only by order."""
    walk = Walk()
    walk.see()
    walk.see()
    walk.see(ending="vLLM ended (code 2): unrecognized arguments: --x")
    walk.see(done=True)
    assert walk.see(done=True) == (Stage.FAILED, ())
    assert [walk.see(1e6), walk.see(restart=Restart.NOW)] == [(Stage.FAILED, ()), (Stage.GATE, ())]


@pytest.mark.parametrize("over", [{"done": True}, {"after": 61.0}, {"ending": "it ended"}])
def test_a_planned_restart_drains_first_and_costs_nothing(over: dict[str, Any]) -> None:
    """It drains until all requests have finished, or its time is over; no evidence, no budget, no pause."""
    walk = Walk().serve()
    assert walk.see(restart=Restart.DRAIN) == (Stage.DRAIN, (DRAIN,))
    assert [walk.see(), walk.see(**over), walk.see(), walk.see(done=True)] == [
        (Stage.DRAIN, ()),
        (Stage.END, (END,)),
        (Stage.END, ()),
        (Stage.GATE, ()),
    ]
    assert (walk.state.ends.moments, walk.state.restarts) == ((), 1)


def test_a_restart_now_does_not_drain_and_a_rolling_one_renews_the_nodes() -> None:
    """`now` ends at once; `rolling` lets every node join anew between the end and the gate."""
    assert Walk().serve().see(restart=Restart.NOW) == (Stage.END, (END,))
    walk = Walk().serve()
    walk.see(restart=Restart.ROLLING)
    walk.see(done=True)
    assert [walk.see(done=True), walk.see(), walk.see(done=True)] == [
        (Stage.RENEW, (RENEW,)),
        (Stage.RENEW, ()),
        (Stage.GATE, ()),
    ]


@pytest.mark.parametrize("looks", [1, 2])
def test_an_order_that_comes_while_it_ends_is_not_lost(looks: int) -> None:
    """A restart that is ordered while evidence is saved, or while all is ended, is carried out, budget or not."""
    walk = Walk(Rules(restarts=0, drain_timeout=60.0)).serve()
    walk.see(**LOST)
    for _ in range(looks - 1):
        walk.see(done=True)
    walk.see(restart=Restart.DRAIN)
    for _ in range(3 - looks):
        walk.see(done=True)
    assert (walk.state.stage, walk.state.planned) == (Stage.GATE, Restart.NONE)


def test_of_two_supervisors_one_stands_by() -> None:
    """Who finds another one waits and names it; who loses the engine ends its own and waits, too."""
    late = Walk()
    assert late.see(other="engine at 10.0.0.1") == (Stage.STANDBY, ())
    assert late.state.detail == "another supervisor has the engine: engine at 10.0.0.1"
    assert late.see() == (Stage.GATE, ())
    loser = Walk().serve()
    assert [loser.see(other="x"), loser.see(other="x", done=True), loser.see(other="x")] == [
        (Stage.END, (END,)),
        (Stage.STANDBY, ()),
        (Stage.STANDBY, ()),
    ]


def test_every_stage_is_something_to_others() -> None:
    """Every stage has a state, and ready is said of none but SERVE."""
    assert set(VIEW) == set(Stage)
    assert [stage for stage, state in VIEW.items() if state is EngineState.READY] == [Stage.SERVE]


WORDS = st.sampled_from(["", "", "", "x"])


class World(RuleBasedStateMachine):
    """A cluster in which anything may happen at any moment."""

    @initialize(restarts=st.integers(0, 3))
    def begin(self, restarts: int) -> None:
        self.rules = Rules(restarts, drain_timeout=60.0)
        self.now = 0.0
        self.state = first(0.0)
        self.server = self.stop = self.saved = False
        self.working: Action | None = None
        self.exits = 0

    def look(self, after: float, **what: Any) -> None:
        self.now += after
        before = self.state
        seen = replace(Seen(self.now, log_moved=self.now, stop=self.stop), **what)
        self.state, actions = step(before, seen, self.rules)
        if self.state.stage is not before.stage:
            self.working = None
        for action in actions:
            self.act(action, seen)

    def act(self, action: Action, seen: Seen) -> None:
        if action is LAUNCH:
            assert not self.server, "a second server was started"
            assert [seen.gate, seen.unchecked, seen.other, self.stop] == ["", False, "", False], "behind a shut gate"
            self.server, self.saved = True, False
        elif action is END:
            planned = self.state.planned or self.state.stopping or self.state.stands_down
            assert self.saved or planned, "ended without evidence"
            self.server, self.working = False, END
        elif action is EXIT:
            assert not self.server, "left a server behind"
            self.exits += 1
        else:
            self.saved = self.saved or action is SAVE
            self.working = action

    @rule(
        after=st.sampled_from([0.2, 1.0, 30.0, 700.0]),
        other=WORDS,
        gate=WORDS,
        unchecked=st.booleans(),
        lost=WORDS,
        wedged=WORDS,
        held=WORDS,
        token=st.booleans(),
        done=st.booleans(),
        restart=st.sampled_from([Restart.NONE, Restart.NONE, Restart.NONE, *Restart]),
        dies=st.booleans(),
    )
    def anything(self, after: float, *, token: bool, done: bool, dies: bool, **what: Any) -> None:
        """One look at whatever is seen."""
        ending = "vLLM ended (code 0): x" if dies and self.server else ""
        self.look(after, token=token and self.server, done=done and self.working is not None, ending=ending, **what)

    @rule()
    def all_is_well(self) -> None:
        """Without this, random walks seldom get as far as SERVE."""
        for _ in range(6):
            self.look(61.0, token=self.server, done=True)

    @rule()
    def somebody_says_stop(self) -> None:
        self.stop = True

    @invariant()
    def a_server_belongs_to_a_stage_that_knows_it(self) -> None:
        if self.server:
            assert self.state.stage in {Stage.START, Stage.SERVE, Stage.DRAIN, Stage.SAVE}
        assert self.exits == (self.state.stage is Stage.STOPPED)
        assert self.state.restarts >= 0

    def teardown(self) -> None:
        """No dead end: where all is well it serves again, by itself or by one order; and a stop ends it."""
        if not self.stop:
            self.look(1.0, restart=Restart.NOW)
            for _ in range(12):
                self.look(61.0, token=self.server, done=True)
            assert (self.state.stage, self.server) == (Stage.SERVE, True)
        self.stop = True
        for _ in range(4):
            self.look(1.0, done=self.working is not None)
        assert (self.state.stage, self.exits, self.server) == (Stage.STOPPED, 1, False)


World.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestAnySequence = World.TestCase
