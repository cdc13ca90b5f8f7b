"""The supervisor's decisions, pure: ``step(state, seen, rules) -> (state, actions)``. Nothing here reads or waits.

    STANDBY -> GATE <-> CLEAR
                 |
               START -> SERVE -> DRAIN ---+     a planned restart: the endpoint is taken out first
                 |        |               |
                 +--------+--> SAVE --> END --> BACKOFF -> GATE
                                          |
                                          +--> RENEW (rolling), FAILED (breaker), STANDBY (lease lost), STOPPED

Every kill is an END, and no END but a planned one comes without SAVE, the evidence. FAILED has three ways out: an order
to restart, a stop, and, unless a restart could only repeat the fault, one more try after ten minutes.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from shoal.engine import policy
from shoal.engine.policy import Ends, GiveUp

COOL_DOWN = 600.0
CLEAR_AGAIN = 5.0
# A start whose log stands still that long hangs: weights that load, and kernels that compile, are told as they go.
START_SILENCE = 900.0
SAVE_LIMIT = 20.0

NONE_YET = Ends()


class Stage(StrEnum):
    """Where the supervisor stands."""

    STANDBY = "STANDBY"
    GATE = "GATE"
    CLEAR = "CLEAR"
    START = "START"
    SERVE = "SERVE"
    DRAIN = "DRAIN"
    SAVE = "SAVE"
    END = "END"
    RENEW = "RENEW"
    BACKOFF = "BACKOFF"
    FAILED = "FAILED"
    STOPPED = "STOPPED"


class Action(StrEnum):
    """What the supervisor is to do now. All but LAUNCH and EXIT take time, and are told as ``done``."""

    CLEAR = "clear"
    LAUNCH = "launch"
    DRAIN = "drain"
    SAVE = "save"
    END = "end"
    RENEW = "renew"
    EXIT = "exit"


class Restart(StrEnum):
    """A restart that was ordered: after a drain, at once, or node by node."""

    NONE = ""
    DRAIN = "drain"
    NOW = "now"
    ROLLING = "rolling"


@dataclass(frozen=True)
class Rules:
    """What does not change while the supervisor runs. Times in seconds."""

    restarts: int
    drain_timeout: float
    window: float = policy.WINDOW


@dataclass(frozen=True)
class State:
    """What the supervisor remembers; ``why`` is the reason of the end that is going on."""

    stage: Stage
    since: float
    detail: str = ""
    why: str = ""
    until: float = 0.0
    ends: Ends = NONE_YET
    was_ready: bool = False
    planned: Restart = Restart.NONE
    stopping: bool = False
    stands_down: bool = False
    final: bool = False
    restarts: int = 0


@dataclass(frozen=True)
class Seen:
    """What the supervisor sees now.

    ``other`` names another supervisor that holds the engine. ``gate`` is why the gate is shut, ``unchecked`` whether a
    node's GPUs have not been found free since they may have been used. ``lost`` says which node the engine was launched
    on is gone, ``ending`` how its server ended, ``wedged`` that no token comes and nothing moves. ``done``: the work of
    this stage is over. ``held`` names who still holds GPUs after it.
    """

    now: float
    stop: bool = False
    restart: Restart = Restart.NONE
    other: str = ""
    gate: str = ""
    unchecked: bool = False
    ending: str = ""
    lost: str = ""
    token: bool = False
    wedged: str = ""
    log_moved: float = 0.0
    done: bool = False
    held: str = ""
    dice: float = 0.5


Step = tuple[State, tuple[Action, ...]]


def first(now: float) -> State:
    """The state at the start."""
    return State(Stage.STANDBY, now)


def step(state: State, seen: Seen, rules: Rules) -> Step:
    """The next state and what to do."""
    if seen.stop and not state.stopping:
        return _stop(state, seen)
    if seen.other and state.stage in {Stage.START, Stage.SERVE, Stage.DRAIN}:
        return _end(replace(state, stands_down=True), seen, f"another supervisor has the engine: {seen.other}")
    if seen.restart and state.stage in {Stage.SAVE, Stage.END} and not state.stopping:
        # It is ending already; the order makes that a planned one, which the breaker does not count.
        state = replace(state, planned=Restart.NOW, ends=Ends(ever_ready=state.ends.ever_ready))
    handler = {
        Stage.STANDBY: _standby,
        Stage.GATE: _gate,
        Stage.CLEAR: _clear,
        Stage.START: _start,
        Stage.SERVE: _serve,
        Stage.DRAIN: _drain,
        Stage.SAVE: _save,
        Stage.END: _ended,
        Stage.RENEW: _renew,
        Stage.BACKOFF: _backoff,
        Stage.FAILED: _failed,
    }.get(state.stage)
    return handler(state, seen, rules) if handler else (state, ())


def _to(state: State, stage: Stage, now: float, detail: str = "") -> State:
    return replace(state, stage=stage, since=now, detail=detail)


def _stop(state: State, seen: Seen) -> Step:
    after = replace(state, stopping=True, planned=Restart.NONE)
    if state.stage is Stage.END:
        return after, ()
    return _end(after, seen, "stopped")


def _end(state: State, seen: Seen, why: str) -> Step:
    return replace(_to(state, Stage.END, seen.now, why), why=why), (Action.END,)


def _recover(state: State, seen: Seen, why: str) -> Step:
    """Something is wrong: evidence first, then the end."""
    return replace(_to(state, Stage.SAVE, seen.now, why), why=why), (Action.SAVE,)


def _standby(state: State, seen: Seen, rules: Rules) -> Step:
    del rules
    if seen.other:
        return replace(state, detail=f"another supervisor has the engine: {seen.other}"), ()
    return _to(state, Stage.GATE, seen.now), ()


def _gate(state: State, seen: Seen, rules: Rules) -> Step:
    del rules  # the gate waits as long as it takes: after a power cut hosts come back in any order
    if seen.other:
        return _to(state, Stage.STANDBY, seen.now, f"another supervisor has the engine: {seen.other}"), ()
    if seen.gate:
        return replace(state, detail=seen.gate), ()
    if seen.unchecked:
        return _to(state, Stage.CLEAR, seen.now, state.detail), (Action.CLEAR,)
    return replace(_to(state, Stage.START, seen.now), was_ready=False, why=""), (Action.LAUNCH,)


def _clear(state: State, seen: Seen, rules: Rules) -> Step:
    del rules
    if not seen.done:
        return state, ()
    if not seen.held:
        return _to(state, Stage.GATE, seen.now), ()
    # Refused by name, never left pending: and looked at again, for they may go.
    after = _to(state, Stage.BACKOFF, seen.now, f"the GPUs are not free: {seen.held}")
    return replace(after, until=seen.now + CLEAR_AGAIN), ()


def _start(state: State, seen: Seen, rules: Rules) -> Step:
    if why := seen.lost or seen.ending:
        return _recover(state, seen, why)
    if seen.restart:
        return _restart(state, seen, rules)
    if seen.token:
        return replace(_to(state, Stage.SERVE, seen.now), was_ready=True, ends=state.ends.ready()), ()
    if seen.now - max(state.since, seen.log_moved) > START_SILENCE:
        return _recover(state, seen, f"the start hangs: vLLM has said nothing for {START_SILENCE / 60:g} minutes")
    return state, ()


def _serve(state: State, seen: Seen, rules: Rules) -> Step:
    if why := seen.lost or seen.ending or seen.wedged:
        return _recover(state, seen, why)
    if seen.restart:
        return _restart(state, seen, rules)
    return state, ()


def _restart(state: State, seen: Seen, rules: Rules) -> Step:
    """A planned one: it costs nothing of the budget, and closes the breaker."""
    after = replace(state, planned=seen.restart, ends=Ends(ever_ready=state.ends.ever_ready))
    if state.stage is Stage.SERVE and seen.restart is not Restart.NOW:
        detail = f"a restart was asked for: running requests have {rules.drain_timeout:g} s to finish"
        return _to(after, Stage.DRAIN, seen.now, detail), (Action.DRAIN,)
    return _end(after, seen, "a restart was asked for")


def _drain(state: State, seen: Seen, rules: Rules) -> Step:
    over = seen.now - state.since > rules.drain_timeout
    if seen.done or over or seen.ending or seen.lost:
        return _end(state, seen, "a restart was asked for")
    return state, ()


def _save(state: State, seen: Seen, rules: Rules) -> Step:
    del rules
    if seen.done or seen.now - state.since > SAVE_LIMIT:
        return _end(state, seen, state.why)
    return state, ()


def _ended(state: State, seen: Seen, rules: Rules) -> Step:
    if not seen.done:
        return state, ()
    if state.stopping:
        return _to(state, Stage.STOPPED, seen.now, "stopped"), (Action.EXIT,)
    if state.stands_down:
        return replace(_to(state, Stage.STANDBY, seen.now, state.why), stands_down=False), ()
    if state.planned is Restart.ROLLING:
        words = "renewing the nodes' Ray, one after the other"
        return replace(_to(state, Stage.RENEW, seen.now, words), planned=Restart.NONE), (Action.RENEW,)
    if state.planned:
        after = _to(state, Stage.GATE, seen.now, "starting again, as asked")
        return replace(after, planned=Restart.NONE, restarts=state.restarts + 1), ()
    decision = policy.after_end(
        state.ends, seen.now, state.why, budget=rules.restarts, dice=seen.dice, window=rules.window
    )
    ends = state.ends.ended(seen.now, was_ready=state.was_ready, window=rules.window)
    if isinstance(decision, GiveUp):
        words = f"{state.why} ({decision.why}); mend the cause, then: shoal restart, or shoal restart -f FILE"
        return replace(_to(state, Stage.FAILED, seen.now, words), ends=ends, final=decision.final), ()
    # Ending and verifying took their time already: the delay counts from the end's beginning.
    until = max(seen.now, state.since + decision.delay)
    after = _to(state, Stage.BACKOFF, seen.now, f"{state.why}; starting again in {until - seen.now:.1f} s")
    return replace(after, until=until, ends=ends, restarts=state.restarts + 1), ()


def _renew(state: State, seen: Seen, rules: Rules) -> Step:
    del rules
    if not seen.done:
        return state, ()
    return replace(_to(state, Stage.GATE, seen.now, "starting again, as asked"), restarts=state.restarts + 1), ()


def _backoff(state: State, seen: Seen, rules: Rules) -> Step:
    del rules
    if seen.restart:
        return replace(_to(state, Stage.GATE, seen.now), ends=Ends(ever_ready=state.ends.ever_ready)), ()
    return (_to(state, Stage.GATE, seen.now, state.detail), ()) if seen.now >= state.until else (state, ())


def _failed(state: State, seen: Seen, rules: Rules) -> Step:
    if seen.restart:
        return replace(_to(state, Stage.GATE, seen.now, "starting again, as asked"), ends=Ends(), final=False), ()
    if not state.final and rules.restarts and seen.now - state.since > COOL_DOWN:
        spent = Ends((), max(0, rules.restarts - 1), state.ends.ever_ready)
        return replace(_to(state, Stage.GATE, seen.now, "one more try after ten minutes"), ends=spent), ()
    return state, ()
