"""What the supervisor's stages are to others. Pure."""

from shoal.engine.recover import Stage, State
from shoal.state.status import EngineState

VIEW = {
    Stage.STANDBY: EngineState.WAITING,
    Stage.GATE: EngineState.WAITING,
    Stage.CLEAR: EngineState.WAITING,
    Stage.START: EngineState.STARTING,
    Stage.SERVE: EngineState.READY,
    Stage.DRAIN: EngineState.DRAINING,
    Stage.SAVE: EngineState.RESTARTING,
    Stage.END: EngineState.RESTARTING,
    Stage.RENEW: EngineState.RESTARTING,
    Stage.BACKOFF: EngineState.RESTARTING,
    Stage.FAILED: EngineState.FAILED,
    Stage.STOPPED: EngineState.STOPPED,
}


def shown(state: State) -> EngineState:
    """The engine's state for every stage but SERVE, where tokens and nodes decide."""
    if state.stopping and state.stage is not Stage.STOPPED:
        return EngineState.STOPPING
    if state.stage is Stage.BACKOFF and not state.why:
        return EngineState.WAITING  # somebody else holds the GPUs
    return VIEW[state.stage]
