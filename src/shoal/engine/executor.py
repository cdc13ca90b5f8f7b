"""The seam between the supervisor and what holds the ranks: Ray, or vLLM's own processes on every node."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from shoal.engine.clear import Orderer
from shoal.engine.launch import Request
from shoal.engine.mp_executor import MpExecutor
from shoal.engine.nodes import Nodes
from shoal.engine.ray_executor import RayExecutor
from shoal.spec.env import ServeSettings
from shoal.state.status import ExecutorKind


class Executor(Protocol):
    """The engine's executor, as the supervisor needs it."""

    @property
    def kind(self) -> ExecutorKind:
        """Which it is; the agents must have the same."""
        ...

    def shut(self) -> str:
        """Why the gate stays shut, whatever the nodes say; empty where nothing speaks against it."""
        ...

    def words(self) -> tuple[str, ...]:
        """The server's words after the request's own."""
        ...

    def environment(self, nodes: Nodes) -> dict[str, str]:
        """The server's environment."""
        ...

    def lay_out(self, config: Path, env: Mapping[str, str]) -> None:
        """Write what vLLM reads in its config folder."""
        ...

    def launch(self, nodes: Nodes) -> Nodes:
        """The nodes, with the engine launched on those whose loss is the engine's end."""
        ...

    def begin(self, nodes: Nodes, logs: Path) -> None:
        """Do what is to be done beside the server, on this node and on the others."""
        ...

    def trouble(self) -> str:
        """Why the engine cannot come up on some node; empty while nothing speaks against it."""
        ...

    async def end(self) -> None:
        """Undo what was begun on this node."""
        ...


def executor_of(settings: ServeSettings, request: Request, env: Mapping[str, str], orders: Orderer) -> Executor:
    """The form that the request asks for."""
    if request.executor is ExecutorKind.MP:
        return MpExecutor(settings, request, env, orders)
    return RayExecutor(settings, request, env)
