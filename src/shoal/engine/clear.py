"""Ending and verifying: the ranks of every node through its agent, and the GPUs as Ray counts them."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from shoal.agent.key import bearer
from shoal.engine.books import Books
from shoal.log import EventLog

END_PATIENCE = aiohttp.ClientTimeout(total=30.0, connect=1.5)
EVIDENCE_PATIENCE = aiohttp.ClientTimeout(total=15.0, connect=1.5)


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

    def __init__(self, books: Books, orders: Orderer, log: EventLog) -> None:
        self._books = books
        self._orders = orders
        self._log = log

    async def clear(self, names: Mapping[str, str], raylets: Mapping[str, str]) -> Cleared:
        """End the ranks on the nodes ``names`` (name by address), wait until their GPUs are free, and say who is left.

        For the ``raylets`` (name by node id) also wait until Ray holds no GPU for an actor or a placement group.
        """
        ended, ray = await asyncio.gather(self._end(names), self._books.held(raylets))
        if ended.silent:
            self._log("clear", f"not verified: {'; '.join(ended.silent)}", level="warn")
        return Cleared("; ".join(words for words in (ended.held, ray) if words), ended.silent)

    async def _end(self, names: Mapping[str, str]) -> Cleared:
        if not self._orders.allowed:
            self._log("clear", "no token of Ray's here: ranks are left to Ray, and not verified gone", level="warn")
            return Cleared("")
        return judge(await self._orders.all(list(names), "end", END_PATIENCE), names)
