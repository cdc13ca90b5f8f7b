"""A client that sends requests to the simulated engine all the time, and checks each answer by itself."""

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp

from shoal.lab.sim.answers import answer, chat_prompt

OWN_LIMIT = 15.0  # seconds after which the client gives a request up
MARGIN = 2.0  # what a busy machine may add to that
TOKENS = 8
LAST_WRONG = 20


@dataclass
class Tally:
    """What became of the requests. ``failed`` were refused or broken off, and were told so; by second of their end."""

    right: int = 0
    failed: int = 0
    timed_out: int = 0
    hung: int = 0
    wrong: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    tokens_at: float = 0.0

    @property
    def sent(self) -> int:
        """All that have ended."""
        return self.right + self.failed + self.timed_out + self.hung + len(self.wrong)

    def as_dict(self) -> dict[str, Any]:
        """The tally as a document."""
        return {
            "sent": self.sent,
            "right": self.right,
            "failed": self.failed,
            "timed_out": self.timed_out,
            "hung": self.hung,
            "wrong": self.wrong[-LAST_WRONG:],
            "reasons": dict(self.reasons.most_common(8)),
        }


class Load:
    """Requests at a steady pace, half of them streamed. Use it as an async context manager.

    ``limit`` are the seconds after which a request is given up; ``on_end`` hears of each when it began, and whether
    its answer was right.
    """

    def __init__(
        self,
        endpoint: str,
        key: str,
        model: str,
        *,
        per_second: float = 4.0,
        limit: float = OWN_LIMIT,
        on_end: Callable[[float, bool], None] = lambda _began, _right: None,
    ) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"}
        self._model = model
        self._pause = 1.0 / per_second
        self._limit = limit
        self._on_end = on_end
        self._numbers = itertools.count()
        self._open: set[asyncio.Task[bool]] = set()
        self._pacer: asyncio.Task[None] | None = None
        self.tally = Tally()

    async def __aenter__(self) -> Self:
        limit = aiohttp.ClientTimeout(total=self._limit)
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        self._http = aiohttp.ClientSession(headers=self._headers, timeout=limit, connector=connector, trust_env=False)
        self._pacer = asyncio.create_task(self._pace())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._pacer is not None:
            self._pacer.cancel()
        if self._open:
            await asyncio.wait(self._open, timeout=self._limit + MARGIN)
        for task in self._open:
            task.cancel()
            self.tally.hung += 1
        await self._http.close()

    async def _pace(self) -> None:
        while True:
            task = asyncio.create_task(self.one())
            self._open.add(task)
            task.add_done_callback(self._open.discard)
            await asyncio.sleep(self._pause)

    async def one(self) -> bool:
        """Send one request and judge its answer; whether it was right."""
        began = time.monotonic()
        right = await self._judged()
        self._on_end(began, right)
        return right

    async def _judged(self) -> bool:
        number = next(self._numbers)
        messages = [{"role": "user", "content": f"request {number} of {id(self)}"}]
        body = {"model": self._model, "messages": messages, "max_tokens": TOKENS, "stream": number % 2 == 0}
        began = time.monotonic()
        try:
            text = await self._ask(body)
        except TimeoutError:
            late = time.monotonic() - began > self._limit + MARGIN
            self.tally.hung += late
            self.tally.timed_out += not late
            return False
        except (aiohttp.ClientError, ValueError, OSError) as error:
            self.tally.failed += 1
            self.tally.reasons[str(error)[:80] or type(error).__name__] += 1
            return False
        expected = answer(chat_prompt(messages), TOKENS)
        if text != expected:
            self.tally.wrong.append(f"request {number}: {text!r}, expected {expected!r}")
            return False
        self.tally.right += 1
        self.tally.tokens_at = time.monotonic()
        return True

    async def _ask(self, body: Mapping[str, Any]) -> str:
        async with self._http.post(f"{self._endpoint}/chat/completions", json=body) as reply:
            if reply.status != 200:
                raise ValueError(f"HTTP {reply.status}")
            if not body["stream"]:
                document = await reply.json()
                return str(document["choices"][0]["message"]["content"])
            return await _streamed(reply)


async def _streamed(reply: aiohttp.ClientResponse) -> str:
    """The text of a stream that was brought to its end; a stream that ends before is a failed request."""
    pieces: list[str] = []
    async for raw in reply.content:
        line = raw.decode().strip()
        if line == "data: [DONE]":
            return "".join(pieces)
        if line.startswith("data: "):
            document = json.loads(line.removeprefix("data: "))
            if "error" in document:
                raise ValueError("an error in the stream")
            pieces += [str(choice["delta"].get("content", "")) for choice in document["choices"]]
    raise ValueError("the stream ended early")
