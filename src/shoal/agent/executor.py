"""What joins a node to the cluster, and holds the engine's ranks on it: the seam between the agent and Ray.

The agent walks its stages with either form: :mod:`shoal.agent.ray_executor` or :mod:`shoal.agent.mp_executor`.
"""

from collections.abc import Mapping
from typing import Protocol

import psutil

from shoal.agent.stages import Observation, Stage
from shoal.agent.talk import Handler
from shoal.state.status import NodeStatus


class Executor(Protocol):
    """One node's part of the engine's executor."""

    @property
    def pid(self) -> int | None:
        """The process that the node's others are below; None where none was started."""
        ...

    @property
    def running(self) -> bool:
        """Whether this node's part runs."""
        ...

    async def look(self, stage: Stage) -> Observation:
        """What is seen of the head and of this node now."""
        ...

    def begin(self, gpus: int) -> None:
        """Join, and offer that many GPUs."""
        ...

    def verify(self) -> None:
        """Begin the check that this node is in the cluster as it should be; once begun, it goes on."""
        ...

    async def drain(self) -> None:
        """Tell the cluster that this node leaves."""
        ...

    async def end(self) -> None:
        """Leave: end every process of this node's part."""
        ...

    def ranks(self) -> list[psutil.Process]:
        """The engine's processes on this node."""
        ...

    def release(self) -> None:
        """The engine's processes here are ended on order: from now on their end is no fault."""
        ...

    def orders(self) -> Mapping[str, Handler]:
        """Further orders that this form takes, by name."""
        ...

    def tell(self, status: NodeStatus) -> NodeStatus:
        """The node's status with what is known here."""
        ...
