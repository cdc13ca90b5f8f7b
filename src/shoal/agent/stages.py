"""The agent's decisions, pure: ``step(state, observation) -> (state, actions)``. Nothing here reads or waits.

    BANNER -> PREFLIGHT -> CLEAN -> WAIT_HEAD -> JOIN -> VERIFY -> UP -> DRAIN -> STOPPED
                                        ^          |       |      |
                                        +----------+-------+------+   raylet died, head gone: back off, then again
    any -> FAILED   the breaker is open: after ten minutes it lets one try through; an order to begin again, at once

A head does not wait for itself: it goes from CLEAN to JOIN.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from shoal.agent.peers import SUSPECT_AFTER
from shoal.state.status import NodeState

RESTART_WINDOW = 600.0
COOL_DOWN = 600.0
SAY_AGAIN = 10.0
MAX_BACKOFF = 30.0
# A port that refuses is a process that has ended. A second look, for a head that is a network away.
REFUSALS = 2
# So often within the window a head may come back as a new cluster before a worker rejoins it more slowly.
PATIENT_REJOINS = 3


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
    lost_after: float = 30.0
    window: float = RESTART_WINDOW


@dataclass(frozen=True)
class State:
    """What the agent remembers. Times in seconds of a monotonic clock; a silence of None is none."""

    stage: Stage
    since: float
    said: float = 0.0
    detail: str = ""
    until: float = 0.0
    restarts: tuple[float, ...] = ()
    rejoins: tuple[float, ...] = ()
    head_silent: float | None = None
    raylet_silent: float | None = None
    head_refusals: int = 0
    was_up: bool = False
    stopping: bool = False

    def node_state(self, now: float) -> NodeState:
        """What this stage is to others: a node whose Ray has just ended is lost, one that hears nothing is suspect."""
        if self.stage is Stage.BACKOFF and self.was_up:
            return NodeState.LOST
        silences = [now - since for since in (self.head_silent, self.raylet_silent) if since is not None]
        if self.stage is Stage.UP and max(silences, default=0.0) > SUSPECT_AFTER:
            return NodeState.SUSPECT
        return NODE_STATE[self.stage]


@dataclass(frozen=True)
class Observation:
    """What the agent sees now.

    ``head_gone`` says why the cluster that this node is in does not exist any more, ``order`` what the supervisor told
    it: "leave" its Ray and join again, or "reset" its breaker as well. ``socket_trouble`` is why workers cannot
    register with the raylet. ``dice`` is random, from 0 to 1. Without Ray, ``ray_running`` says that this node has
    joined, and ``head_serving`` that the head's agent answers its heartbeats.
    """

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
    head_refuses: bool = False
    head_gone: str = ""
    raylet_refuses: bool = False
    socket_trouble: str = ""
    order: str = ""
    dice: float = 0.5

    @property
    def ray_words(self) -> str:
        """Ray's own words about its end: the fatal line of a process of its, else what ``ray start`` said last."""
        return self.ray_fault or self.ray_tail or "it said nothing"


Step = tuple[State, tuple[Action, ...]]


def first(rules: Rules, now: float) -> Step:
    """The state after BANNER, PREFLIGHT and CLEAN, with the first action."""
    if rules.is_head:
        return State(Stage.JOIN, now, detail="starting the head"), (Action.START_RAY,)
    return State(Stage.WAIT_HEAD, now, detail="waiting for the head"), ()


def step(state: State, seen: Observation, rules: Rules) -> Step:
    """The next state and what to do."""
    leaving = state.stage in {Stage.DRAIN, Stage.STOPPED}
    if seen.stop_requested and not leaving and state.stage is not Stage.FAILED:
        return _leave(state, seen, rules)
    if seen.order and not seen.stop_requested and not leaving:
        return _obey(state, seen)
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
    was_up = stage is Stage.UP or (state.was_up and stage is Stage.BACKOFF)
    after = replace(state, stage=stage, since=now, said=now, detail=detail, was_up=was_up)
    return replace(after, head_silent=None, raylet_silent=None, head_refusals=0)


def _leave(state: State, seen: Observation, rules: Rules) -> Step:
    joined = state.stage is Stage.UP and not rules.is_head and seen.head_serving
    after = _to(state, Stage.DRAIN, seen.now, "leaving the cluster")
    return after, ((Action.DRAIN,) if joined else (Action.STOP_RAY,))


def _obey(state: State, seen: Observation) -> Step:
    """The supervisor's order: this Ray is left, and after that joined anew; a breaker that is open is closed."""
    if seen.order == "reset" and state.stage is not Stage.FAILED:
        return replace(state, restarts=(), rejoins=()), ()
    after = _to(state, Stage.BACKOFF, seen.now, "told to begin again by the supervisor")
    kept = () if seen.order == "reset" else state.restarts
    return replace(after, until=seen.now, restarts=kept), (Action.STOP_RAY,)


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
        if seen.now - state.since > 2 * rules.join_timeout:
            return _again(state, seen, rules, f"the check had no answer within {2 * rules.join_timeout:g} s")
        return state, ()
    if seen.verified:
        return _to(state, Stage.UP, seen.now, ""), ()
    return _again(state, seen, rules, seen.verify_reason)


def _up(state: State, seen: Observation, rules: Rules) -> Step:
    if not seen.ray_running:
        return _again(state, seen, rules, f"Ray ended: {seen.ray_words}")
    if seen.raylet_refuses:
        # `ray start --block` stays for ever when its raylet has ended by SIGTERM or a drain.
        return _again(state, seen, rules, "the raylet has ended")
    if seen.socket_trouble:
        # It answers, and looks well; but the engine would hang at each start, waiting for workers.
        return _again(state, seen, rules, f"no worker can register with the raylet: {seen.socket_trouble}")
    refusals = state.head_refusals + 1 if seen.head_refuses else 0
    if refusals >= REFUSALS and rules.is_head:
        return _again(state, seen, rules, "the GCS has ended")
    if not rules.is_head and (seen.head_gone or refusals >= REFUSALS):
        return _rejoin(state, seen, rules, seen.head_gone or f"the head's GCS has ended: {seen.head_reason}")
    head = _silence(state.head_silent, seen.now, answers=seen.head_serving)
    raylet = _silence(state.raylet_silent, seen.now, answers=seen.raylet_serving)
    if raylet is not None and seen.now - raylet > rules.lost_after:
        return _again(state, seen, rules, f"the raylet has not answered for {rules.lost_after:g} s")
    if head is not None and seen.now - head > rules.lost_after:
        if rules.is_head:
            return _again(state, seen, rules, f"the GCS has not answered for {rules.lost_after:g} s")
        # Cut off, its ranks can only hold GPUs, and Ray itself would wait for minutes.
        return _rejoin(state, seen, rules, f"cut off from the head for {rules.lost_after:g} s: {seen.head_reason}")
    detail = f"the head does not answer: {seen.head_reason}" if head is not None else ""
    detail = "the raylet does not answer" if raylet is not None and not detail else detail
    return replace(state, head_silent=head, raylet_silent=raylet, head_refusals=refusals, detail=detail), ()


def _silence(since: float | None, now: float, *, answers: bool) -> float | None:
    if answers:
        return None
    return now if since is None else since


def _recent(moments: tuple[float, ...], now: float, rules: Rules) -> tuple[float, ...]:
    return tuple(at for at in moments if now - at < rules.window)


def _pause(count: int, dice: float) -> float:
    """Half a second, doubled ``count`` times, and up to a quarter more or less: not all nodes at one moment."""
    return min(MAX_BACKOFF, 0.5 * 2.0 ** min(count, 16) * (0.75 + dice / 2))


def _rejoin(state: State, seen: Observation, rules: Rules, reason: str) -> Step:
    """Leave a cluster that is gone or out of reach. That is no fault of this node's: it costs no restart."""
    recent = _recent(state.rejoins, seen.now, rules)
    delay = _pause(len(recent) - PATIENT_REJOINS, seen.dice) if len(recent) >= PATIENT_REJOINS else 0.0
    after = _to(state, Stage.BACKOFF, seen.now, reason)
    return replace(after, until=seen.now + delay, rejoins=(*recent, seen.now)), (Action.STOP_RAY,)


def _again(state: State, seen: Observation, rules: Rules, reason: str) -> Step:
    recent = _recent(state.restarts, seen.now, rules)
    if len(recent) >= rules.restarts:
        detail = f"{reason}; gave up after {len(recent)} restarts within {rules.window / 60:g} minutes"
        return _to(state, Stage.FAILED, seen.now, detail), (Action.STOP_RAY,)
    after = _to(state, Stage.BACKOFF, seen.now, reason)
    until = seen.now + _pause(len(recent), seen.dice)
    return replace(after, until=until, restarts=(*recent, seen.now)), (Action.STOP_RAY,)


def _backoff(state: State, seen: Observation, rules: Rules) -> Step:
    if seen.now < state.until or seen.ray_running:
        return state, ()
    if rules.is_head:
        return _to(state, Stage.JOIN, seen.now, "starting the head again"), (Action.START_RAY,)
    return _to(state, Stage.WAIT_HEAD, seen.now, "waiting for the head"), ()


def _drain(state: State, seen: Observation, rules: Rules) -> Step:
    del rules
    if seen.ray_running:
        ready = seen.drained and not state.stopping
        return (replace(state, stopping=True), (Action.STOP_RAY,)) if ready else (state, ())
    return _to(state, Stage.STOPPED, seen.now, "left the cluster"), (Action.EXIT,)


def _failed(state: State, seen: Observation, rules: Rules) -> Step:
    if seen.stop_requested:
        if seen.ray_running:
            return state, (Action.STOP_RAY,)
        return _to(state, Stage.STOPPED, seen.now, state.detail), (Action.EXIT,)
    if rules.restarts and seen.now - state.since > COOL_DOWN and not seen.ray_running:
        # Half open: one try, and its failure opens the breaker again. A switch that was mended needs nobody here.
        after = _to(state, Stage.BACKOFF, seen.now, "one more try after ten minutes")
        return replace(after, until=seen.now, restarts=(seen.now,) * rules.restarts), ()
    return state, ()


def said(state: State, now: float) -> State:
    """The state, with the moment remembered at which it was last told to people."""
    return replace(state, said=now)
