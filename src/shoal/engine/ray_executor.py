"""Ray as the engine's executor: vLLM's driver finds the ranks' places itself."""

from collections.abc import Mapping
from pathlib import Path

from shoal.agent.supervise import Child
from shoal.engine import launch, raylet_sign
from shoal.engine.nodes import Nodes
from shoal.facts.versions import versions
from shoal.spec.env import ServeSettings
from shoal.state.status import ExecutorKind


class RayExecutor:
    """Ranks live in Ray, which the agents run."""

    kind = ExecutorKind.RAY

    def __init__(self, settings: ServeSettings, request: launch.Request, env: Mapping[str, str]) -> None:
        self._settings = settings
        self._request = request
        self._env = dict(env)
        self._sign: Child | None = None

    def shut(self) -> str:
        """Nothing that the nodes would not tell."""
        return ""

    def words(self) -> tuple[str, ...]:
        """None: Ray knows its nodes."""
        return ()

    def environment(self, nodes: Nodes) -> dict[str, str]:
        """The driver's."""
        del nodes
        return launch.environment(self._env, self._request, self._settings.address, versions().vllm)

    def lay_out(self, config: Path, env: Mapping[str, str]) -> None:
        """The list of variables that must not travel with the driver."""
        (config / "ray_non_carry_over_env_vars.json").write_text(launch.not_carried(env), encoding="utf-8")

    def launch(self, nodes: Nodes) -> Nodes:
        """On all: a rank ends with its raylet."""
        return nodes.launch()

    def begin(self, nodes: Nodes, logs: Path) -> None:
        """Show the driver which raylet is this node's."""
        self._sign = raylet_sign.put_up(nodes.launched.get(self._settings.address), logs)

    def trouble(self) -> str:
        """None that vLLM would not tell itself."""
        return ""

    async def end(self) -> None:
        """Take the sign down."""
        if self._sign is not None:
            await self._sign.stop(0.5)
            self._sign = None
