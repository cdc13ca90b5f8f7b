"""Who holds GPUs in Ray's books: asked by a child, since only that loads Ray."""

import sys
from collections.abc import Mapping
from pathlib import Path

from shoal.agent import ray_command
from shoal.agent.supervise import Child
from shoal.errors import ShoalError
from shoal.facts.ray import early_argv, free_argv, parse_usage
from shoal.host.local import LocalHost
from shoal.log import EventLog
from shoal.spec import worker_env
from shoal.spec.env import ServeSettings

FREE_WITHIN = 15.0


class Books:
    """Ray's books. To load Ray takes a second or more: whoever knows that a question will come opens them early."""

    def __init__(self, settings: ServeSettings, env: Mapping[str, str], log: EventLog) -> None:
        self._settings = settings
        self._env = dict(env)
        self._log = log
        self._folder = Path(settings.state_dir) / "logs"
        self._question = self._folder / ".free.ask"
        self._early: Child | None = None

    def open(self) -> None:
        """Load Ray now, for a question that comes within a minute."""
        if self._early is None or self._early.code is not None:
            self._question.unlink(missing_ok=True)
            argv = early_argv(sys.executable, self._settings.head, self._question, FREE_WITHIN)
            self._early = self._start(argv, ".free-early.json")

    async def close(self) -> None:
        """No question comes."""
        if self._early is not None:
            await self._early.stop(0.5)
            self._early = None

    async def held(self, raylets: Mapping[str, str]) -> str:
        """Who holds GPUs of the ``raylets`` (name by node id) after a while; empty where nobody does.

        Where Ray cannot be asked that is said, and nobody is named.
        """
        if not raylets:
            await self.close()
            return ""
        try:
            told = await self._ask_early(raylets)
            return await self._ask(raylets) if told is None else told
        except ShoalError as error:
            self._log("clear", f"Ray was not asked for its GPUs: {' '.join(str(error).split())}", level="warn")
            return ""

    async def _ask_early(self, raylets: Mapping[str, str]) -> str | None:
        """The answer of the child that has loaded Ray; None where there is none to be had."""
        early, self._early = self._early, None
        if early is None or early.code is not None:
            return None
        try:
            LocalHost().write(str(self._question), "\n".join(sorted(raylets)), mode=0o600)
            return await self._answer(early, raylets)
        except ShoalError:
            await early.stop(0.5)
            return None  # the GCS that it asks may have ended since; another child asks the one of now

    async def _ask(self, raylets: Mapping[str, str]) -> str:
        argv = free_argv(sys.executable, self._settings.head, raylets, FREE_WITHIN)
        return await self._answer(self._start(argv, ".free.json"), raylets)

    async def _answer(self, child: Child, raylets: Mapping[str, str]) -> str:
        try:
            await child.wait(FREE_WITHIN + 8)
            held = parse_usage(child.output(100_000)).held
        finally:
            await child.stop(0.5)
        return "; ".join(
            f"{node.total - node.free:g} GPU(s) of {raylets[node.node_id]} belong to another job of Ray's"
            for node in held
        )

    def _start(self, argv: tuple[str, ...], answer: str) -> Child:
        path = self._folder / answer
        path.unlink(missing_ok=True)
        env = worker_env.passed_on(self._env)
        if ray_command.is_loopback(self._settings.address):
            env["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        return Child.start(argv, env=env, log=path)
