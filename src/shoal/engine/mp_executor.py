"""vLLM's own executor over several nodes: the server has the head's ranks, the agents run the others' on order."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from shoal.engine.clear import Orderer
from shoal.engine.launch import Request
from shoal.engine.nodes import Nodes
from shoal.facts.versions import is_cpu_build
from shoal.plan.executor import RankOrder, carried, node_words, order_of, rank_arguments
from shoal.plan.nccl_files import FOLDER, nccl_files
from shoal.spec import worker_env
from shoal.spec.env import ServeSettings
from shoal.state.status import ExecutorKind

PATIENCE = aiohttp.ClientTimeout(total=10.0, connect=1.5)


class MpExecutor:
    """Ranks live below the server here, and below a headless process on every other node."""

    kind = ExecutorKind.MP

    def __init__(self, settings: ServeSettings, request: Request, env: Mapping[str, str], orders: Orderer) -> None:
        self._settings = settings
        self._request = request
        self._env = dict(env)
        self._orders = orders
        self._nodes = order_of(settings.expect, settings.address)
        self._task: asyncio.Task[str] | None = None

    def shut(self) -> str:
        """Without a key no agent takes the order to start its ranks."""
        if len(self._nodes) == 1 or self._orders.allowed:
            return ""
        return "there is no token here to give orders with: set RAY_AUTH_TOKEN_PATH to the same file on every node"

    def words(self) -> tuple[str, ...]:
        """The first place among the nodes."""
        return node_words(0, len(self._nodes), self._settings.head)

    def environment(self, nodes: Nodes) -> dict[str, str]:
        """What ranks need, for they are the server's children; NCCL tells its choices where this node's agent looks."""
        env = worker_env.for_raylet(self._env)
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        agent = nodes.words.get(self._settings.address)
        if agent is not None and not is_cpu_build():
            files = Path(self._settings.state_dir) / FOLDER / agent.status.name
            env |= {setting.name: setting.value for setting in nccl_files(env, files)}
        return {**env, **self._request.env}

    def lay_out(self, config: Path, env: Mapping[str, str]) -> None:
        """Nothing: each node's ranks have their own node's variables."""

    def launch(self, nodes: Nodes) -> Nodes:
        """On all but this one: its ranks are not the agent's, and its agent may come and go."""
        return nodes.launch(apart=self._settings.address)

    def begin(self, nodes: Nodes, logs: Path) -> None:
        """Order the other nodes to start their ranks."""
        del nodes, logs
        self._task = asyncio.create_task(self._order())

    async def _order(self) -> str:
        arguments, env = rank_arguments(self._request.arguments), carried(self._request.env)
        orders = {
            address: RankOrder(rank=rank, nodes=len(self._nodes), arguments=arguments, env=env).model_dump()
            for rank, address in enumerate(self._nodes)
            if rank
        }
        answers = await asyncio.gather(
            *(self._orders.one(address, "start", order, PATIENCE) for address, order in orders.items())
        )
        refused = [
            f"{address} does not start its ranks: {str(answer) or type(answer).__name__}"
            for address, answer in zip(orders, answers, strict=True)
            if isinstance(answer, Exception)
        ]
        return "; ".join(refused)

    def trouble(self) -> str:
        """Which node does not start its ranks, and why."""
        if self._task is None or not self._task.done() or self._task.cancelled():
            return ""
        error = self._task.exception()
        return (
            self._task.result() if error is None else f"the other nodes were not told to start their ranks: {error!r}"
        )

    async def end(self) -> None:
        """Order nobody any more; the ranks are ended by the order to end them, as Ray's are."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
