"""The agent's decisions, pure: ``step(state, observation) -> (state, actions)``. Nothing here reads or waits.

    BANNER -> PREFLIGHT -> CLEAN -> WAIT_HEAD -> JOIN -> VERIFY -> UP -> DRAIN -> STOPPED
                                        ^          |       |      |
                                        +----------+-------+------+   raylet died, head gone: back off, then again
    any -> FAILED   the breaker is open, or a fault that no retry mends

A head does not wait for itself: it goes from CLEAN to JOIN.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from shoal.state.status import NodeState

RESTART_WINDOW = 600.0
SAY_AGAIN = 10.0
MAX_BACKOFF = 30.0
MISSES = 3


class Stage(StrEnum):
    """Where the agent stands."""

    WAIT_HEAD = "WAIT_HEAD"
    JOIN = "JOIN"
    VERIFY = "VERIFY"
    UP = "UP"
    BACKOFF = "BACKOFF"
    DRAIN = "DRAIN"
    STOPPED = "STOPPED"
    FAILED = "FAILED"


class Action(StrEnum):
    """What the agent is to do now."""

    START_RAY = "start ray"
    STOP_RAY = "stop ray"
    VERIFY = "verify"
    DRAIN = "drain"
    EXIT = "exit"


NODE_STATE = {
    Stage.WAIT_HEAD: NodeState.WAITING,
    Stage.JOIN: NodeState.JOINING,
    Stage.VERIFY: NodeState.JOINING,
    Stage.UP: NodeState.UP,
    Stage.BACKOFF: NodeState.WAITING,
    Stage.DRAIN: NodeState.DRAINING,
    Stage.STOPPED: NodeState.STOPPED,
    Stage.FAILED: NodeState.FAILED,
}


@dataclass(frozen=True)
class Rules:
    """What does not change while the agent runs. Times in seconds."""

    is_head: bool
    join_timeout: float
    restarts: int


@dataclass(frozen=True)
class State:
    """What the agent remembers. Times in seconds of a monotonic clock."""

    stage: Stage
    since: float
    said: float = 0.0
    detail: str = ""
    until: float = 0.0
    restarts: tuple[float, ...] = ()
    head_misses: int = 0
    raylet_misses: int = 0
    stopping: bool = False


@dataclass(frozen=True)
class Observation:
    """What the agent sees now."""

    now: float
    head_serving: bool
    head_reason: str
    ray_running: bool
    ray_tail: str
    raylet_serving: bool
    verified: bool | None = None
    verify_reason: str = ""
    stop_requested: bool = False
    drained: bool = False
    ray_fault: str = ""

    @property
    def ray_words(self) -> str:
        """Ray's own words about its end: the fatal line of a process of its, else what ``ray start`` said last."""
        return self.ray_fault or self.ray_tail or "it said nothing"


Step = tuple[State, tuple[Action, ...]]


def first(rules: Rules, now: float) -> Step:
    """The state after BANNER, PREFLIGHT and CLEAN, with the first action."""
    if rules.is_head:
        return State(Stage.JOIN, now, detail="starting Ray's head"), (Action.START_RAY,)
    return State(Stage.WAIT_HEAD, now, detail="waiting for the head"), ()


def step(state: State, seen: Observation, rules: Rules) -> Step:
    """The next state and what to do."""
    if seen.stop_requested and state.stage not in {Stage.DRAIN, Stage.STOPPED, Stage.FAILED}:
        return _leave(state, seen, rules)
    handler = {
        Stage.WAIT_HEAD: _wait_head,
        Stage.JOIN: _join,
        Stage.VERIFY: _verify,
        Stage.UP: _up,
        Stage.BACKOFF: _backoff,
        Stage.DRAIN: _drain,
        Stage.FAILED: _failed,
    }.get(state.stage)
    return handler(state, seen, rules) if handler else (state, ())


def _to(state: State, stage: Stage, now: float, detail: str) -> State:
    return replace(state, stage=stage, since=now, said=now, detail=detail, head_misses=0, raylet_misses=0)


def _leave(state: State, seen: Observation, rules: Rules) -> Step:
    joined = state.stage is Stage.UP and not rules.is_head and seen.head_serving
    after = _to(state, Stage.DRAIN, seen.now, "leaving the cluster")
    return after, ((Action.DRAIN,) if joined else (Action.STOP_RAY,))


def _wait_head(state: State, seen: Observation, rules: Rules) -> Step:
    del rules  # a worker waits for its head as long as it takes: a boot comes before the link is up
    if seen.head_serving:
        return _to(state, Stage.JOIN, seen.now, "joining"), (Action.START_RAY,)
    return replace(state, detail=f"waiting for the head: {seen.head_reason}"), ()


def _join(state: State, seen: Observation, rules: Rules) -> Step:
    if not seen.ray_running:
        return _again(state, seen, rules, f"ray start ended: {seen.ray_words}")
    if seen.ray_fault:
        # `ray start` goes on asking a dead GCS for 40 s.
        return _again(state, seen, rules, f"Ray failed: {seen.ray_fault}")
    if seen.raylet_serving and seen.head_serving:
        return _to(state, Stage.VERIFY, seen.now, "in the cluster, checking"), (Action.VERIFY,)
    if seen.now - state.since > rules.join_timeout:
        return _again(state, seen, rules, f"no raylet within {rules.join_timeout:g} s: {seen.ray_words}")
    return state, ()


def _verify(state: State, seen: Observation, rules: Rules) -> Step:
    if not seen.ray_running:
        return _again(state, seen, rules, f"Ray ended while it was checked: {seen.ray_words}")
    if seen.verified is None:
        return state, ()
    if seen.verified:
        return _to(state, Stage.UP, seen.now, ""), ()
    return _again(state, seen, rules, seen.verify_reason)


def _up(state: State, seen: Observation, rules: Rules) -> Step:
    if not seen.ray_running:
        return _again(state, seen, rules, f"Ray ended: {seen.ray_words}")
    head_misses = 0 if rules.is_head or seen.head_serving else state.head_misses + 1
    raylet_misses = 0 if seen.raylet_serving else state.raylet_misses + 1
    if head_misses >= MISSES:
        return _again(state, seen, rules, f"the head does not answer: {seen.head_reason}")
    if raylet_misses >= MISSES:
        # `ray start --block` stays for ever when its raylet has ended by SIGTERM or a drain.
        return _again(state, seen, rules, "the raylet does not answer")
    return replace(state, head_misses=head_misses, raylet_misses=raylet_misses), ()


def _again(state: State, seen: Observation, rules: Rules, reason: str) -> Step:
    recent = tuple(at for at in state.restarts if seen.now - at < RESTART_WINDOW)
    if len(recent) >= rules.restarts:
        detail = f"{reason}; gave up after {len(recent)} restarts within {RESTART_WINDOW / 60:g} minutes"
        return _to(state, Stage.FAILED, seen.now, detail), (Action.STOP_RAY,)
    delay = min(MAX_BACKOFF, 0.5 * 2 ** len(recent))
    after = _to(state, Stage.BACKOFF, seen.now, reason)
    return replace(after, until=seen.now + delay, restarts=(*recent, seen.now)), (Action.STOP_RAY,)


def _backoff(state: State, seen: Observation, rules: Rules) -> Step:
    if seen.now < state.until or seen.ray_running:
        return state, ()
    if rules.is_head:
        return _to(state, Stage.JOIN, seen.now, "starting Ray's head again"), (Action.START_RAY,)
    return _to(state, Stage.WAIT_HEAD, seen.now, "waiting for the head"), ()


def _drain(state: State, seen: Observation, rules: Rules) -> Step:
    del rules
    if seen.ray_running:
        ready = seen.drained and not state.stopping
        return (replace(state, stopping=True), (Action.STOP_RAY,)) if ready else (state, ())
    return _to(state, Stage.STOPPED, seen.now, "left the cluster"), (Action.EXIT,)


def _failed(state: State, seen: Observation, rules: Rules) -> Step:
    del rules
    if not seen.stop_requested:
        return state, ()
    if seen.ray_running:
        return state, (Action.STOP_RAY,)
    return _to(state, Stage.STOPPED, seen.now, state.detail), (Action.EXIT,)


def said(state: State, now: float) -> State:
    """The state, with the moment remembered at which it was last told to people."""
    return replace(state, said=now)
