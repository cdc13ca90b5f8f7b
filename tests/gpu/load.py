"""A client of the OpenAI API: requests of random tokens, answers of a fixed length, streamed and timed."""

import asyncio
import json
import random
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp

PATIENCE = aiohttp.ClientTimeout(total=120)


@dataclass
class Tally:
    """What became of the requests: seconds to the first token, to the last, and tokens of each that was answered."""

    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    tokens: int = 0
    failed: int = 0


@dataclass(frozen=True)
class Shape:
    """Tokens of prompt and answer, requests in all, and how many at a time."""

    prompt: int
    answer: int
    requests: int
    streams: int
    vocabulary: int = 40_000


async def one(http: aiohttp.ClientSession, endpoint: str, model: str, shape: Shape, tally: Tally) -> None:
    """One request; a failed one is counted."""
    prompt = [random.randrange(1000, shape.vocabulary) for _ in range(shape.prompt)]
    body = {
        "model": model, "prompt": prompt, "max_tokens": shape.answer, "min_tokens": shape.answer, "ignore_eos": True,
        "temperature": 0, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    began, first, tokens = time.monotonic(), 0.0, 0
    try:
        async with http.post(f"{endpoint}/completions", json=body) as reply:
            reply.raise_for_status()
            async for raw in reply.content:
                line = raw.decode().strip().removeprefix("data: ")
                if not line.startswith("{"):
                    continue
                first = first or time.monotonic() - began
                tokens = (json.loads(line).get("usage") or {}).get("completion_tokens", tokens)
    except (aiohttp.ClientError, TimeoutError, ValueError):
        tokens = 0
    if tokens < shape.answer:
        tally.failed += 1
        await asyncio.sleep(0.5)
        return
    tally.first.append(first)
    tally.whole.append(time.monotonic() - began)
    tally.tokens += tokens


async def _drive(endpoint: str, key: str, model: str, shape: Shape, stop: asyncio.Event | None) -> Tally:
    tally, left = Tally(), iter(range(shape.requests))

    async def stream(http: aiohttp.ClientSession) -> None:
        for _ in left:
            if stop is not None and stop.is_set():
                return
            await one(http, endpoint, model, shape, tally)

    headers, connector = {"Authorization": f"Bearer {key}"}, aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, timeout=PATIENCE, connector=connector, trust_env=False) as http:
        await asyncio.gather(*(stream(http) for _ in range(shape.streams)))
    return tally


def percentile(values: list[float], share: float) -> float:
    """The value that so much of them is not above."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def measure(endpoint: str, key: str, model: str, shape: Shape) -> dict[str, Any]:
    """Throughput and latency of that load."""
    began = time.monotonic()
    tally = asyncio.run(_drive(endpoint, key, model, shape, None))
    seconds = time.monotonic() - began
    each = [
        (whole - first) / max(1, shape.answer - 1) for first, whole in zip(tally.first, tally.whole, strict=True)
    ]  # fmt: skip
    return {
        **vars(shape),
        "seconds": round(seconds, 2),
        "failed": tally.failed,
        "tokens_per_second": round(tally.tokens / seconds, 1),
        "first_token_s": {
            "median": round(percentile(tally.first, 0.5), 4),
            "p99": round(percentile(tally.first, 0.99), 4),
        },
        "token_ms": round(1000 * statistics.median(each), 3) if each else None,
    }


class Background:
    """The same load until it is told to stop, in a thread of its own."""

    def __init__(self, endpoint: str, key: str, model: str, shape: Shape) -> None:
        self._arguments = (endpoint, key, model, shape)
        self.tally: Tally | None = None

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self.tally = await _drive(*self._arguments, self._stop)

    def run(self) -> None:
        """Drive, and return once told to stop; for a thread."""
        asyncio.run(self._run())

    def stop(self) -> None:
        """Start no further request."""
        self._loop.call_soon_threadsafe(self._stop.set)
