"""Ending and verifying: the ranks of every node through its agent, and the GPUs as Ray counts them."""

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from shoal.agent import ray_command
from shoal.agent.key import bearer
from shoal.agent.supervise import Child
from shoal.errors import ShoalError
from shoal.facts.ray import free_argv, parse_usage
from shoal.log import EventLog
from shoal.spec import worker_env
from shoal.spec.env import ServeSettings

END_PATIENCE = aiohttp.ClientTimeout(total=30.0, connect=1.5)
EVIDENCE_PATIENCE = aiohttp.ClientTimeout(total=15.0, connect=1.5)
FREE_WITHIN = 15.0


@dataclass(frozen=True)
class Cleared:
    """What was verified on the nodes that answered; ``held`` names who still holds GPUs or could not be ended."""

    held: str
    silent: tuple[str, ...] = ()


class Orderer:
    """Gives orders to the agents."""

    def __init__(self, port: int, key: Callable[[], str | None]) -> None:
        self._port = port
        self._key = key

    @property
    def allowed(self) -> bool:
        """Whether there is a key to give orders with."""
        return self._key() is not None

    async def all(self, addresses: Sequence[str], order: str, patience: aiohttp.ClientTimeout) -> dict[str, Any]:
        """By address: what each agent answered, as JSON, or an OSError, ValueError or TimeoutError."""
        async with aiohttp.ClientSession(timeout=patience, trust_env=False, headers=bearer(self._key())) as http:
            answers = await asyncio.gather(*(self._one(http, address, order, None) for address in addresses))
        return dict(zip(addresses, answers, strict=True))

    async def one(self, address: str, order: str, body: object, patience: aiohttp.ClientTimeout) -> Any:
        """One agent's answer, or the error."""
        async with aiohttp.ClientSession(timeout=patience, trust_env=False, headers=bearer(self._key())) as http:
            return await self._one(http, address, order, body)

    async def _one(self, http: aiohttp.ClientSession, address: str, order: str, body: object) -> Any:
        host = f"[{address}]" if ":" in address else address
        try:
            async with http.post(f"http://{host}:{self._port}/orders/{order}", json=body) as reply:
                if reply.status != 200:
                    return ValueError(f"its agent answers {reply.status}: {(await reply.text()).strip()[:200]}")
                return await reply.json(content_type=None) if "json" in reply.content_type else await reply.text()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            return error


def judge(answers: Mapping[str, Any], names: Mapping[str, str]) -> Cleared:
    """The verdict on the agents' answers to the order to end their ranks. Pure."""
    held: list[str] = []
    silent = []
    for address, answer in answers.items():
        name = f"{names.get(address, 'node')} ({address})"
        if not isinstance(answer, dict):
            silent.append(f"{name}: {str(answer) or type(answer).__name__}")
            continue
        held += [f"on {name} {who} cannot be ended" for who in answer.get("left", ())]
        held += [f"on {name} {who} holds a GPU" for who in answer.get("held", ())]
    return Cleared("; ".join(held), tuple(silent))


class Clearer:
    """Makes sure that no rank is left and that the GPUs are free."""

    def __init__(self, settings: ServeSettings, env: Mapping[str, str], orders: Orderer, log: EventLog) -> None:
        self._settings = settings
        self._env = dict(env)
        self._orders = orders
        self._log = log

    async def clear(self, names: Mapping[str, str], raylets: Mapping[str, str]) -> Cleared:
        """End the ranks on the nodes ``names`` (name by address), wait until their GPUs are free, and say who is left.

        For the ``raylets`` (name by node id) also wait until Ray holds no GPU for an actor or a placement group.
        """
        ended, ray = await asyncio.gather(self._end(names), self._ray(raylets))
        if ended.silent:
            self._log("clear", f"not verified: {'; '.join(ended.silent)}", level="warn")
        return Cleared("; ".join(words for words in (ended.held, ray) if words), ended.silent)

    async def _end(self, names: Mapping[str, str]) -> Cleared:
        if not self._orders.allowed:
            self._log("clear", "no token of Ray's here: ranks are left to Ray, and not verified gone", level="warn")
            return Cleared("")
        return judge(await self._orders.all(list(names), "end", END_PATIENCE), names)

    async def _ray(self, raylets: Mapping[str, str]) -> str:
        """Who holds GPUs in Ray's books after a while; empty where nobody does, or where Ray cannot be asked."""
        if not raylets:
            return ""
        argv = free_argv(sys.executable, self._settings.head, raylets, FREE_WITHIN)
        child = Child.start(argv, env=self._child_env(), log=self._answer_file())
        try:
            await child.wait(FREE_WITHIN + 8)
            held = parse_usage(child.output(100_000)).held
        except ShoalError as error:
            self._log("clear", f"Ray was not asked for its GPUs: {' '.join(str(error).split())}", level="warn")
            return ""
        finally:
            await child.stop(0.5)
        return "; ".join(
            f"{node.total - node.free:g} GPU(s) of {raylets[node.node_id]} belong to another job of Ray's"
            for node in held
        )

    def _answer_file(self) -> Path:
        path = Path(self._settings.state_dir) / "logs" / ".free.json"
        path.unlink(missing_ok=True)
        return path

    def _child_env(self) -> dict[str, str]:
        env = worker_env.passed_on(self._env)
        if ray_command.is_loopback(self._settings.address):
            env["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        return env
