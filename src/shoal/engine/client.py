"""Questions to a vLLM server: is it healthy, does a token come, how many came so far, what does the model say."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Self

import aiohttp

from shoal.engine.watch import Counters
from shoal.errors import ShoalError


@dataclass(frozen=True)
class Piece:
    """A piece of a streamed answer; ``tokens`` is the whole answer's number, said once at its end."""

    text: str
    tokens: int = 0


@dataclass(frozen=True)
class Answer:
    """A chat answer: its text, tokens generated, and seconds from question to end."""

    text: str
    tokens: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens per second over the whole answer."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


class EngineClient:
    """One vLLM server. Use it as an async context manager."""

    def __init__(self, endpoint: str, key: str, model: str) -> None:
        self._base = endpoint.rstrip("/")
        self._root = self._base.removesuffix("/v1")
        self._model = model
        self._headers = {"Authorization": f"Bearer {key}"}

    async def __aenter__(self) -> Self:
        # trust_env off: a proxy of the desktop must never be asked for a loopback address.
        self._http = aiohttp.ClientSession(headers=self._headers, trust_env=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def healthy(self, seconds: float = 2.0) -> bool:
        """Whether ``/health`` answers 200. It only reads an error flag: no proof that tokens come."""
        try:
            async with self._http.get(f"{self._root}/health", timeout=_limit(seconds)) as reply:
                return reply.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def one_token(self, seconds: float) -> bool:
        """Whether the engine produces one token within ``seconds``."""
        body = {"model": self._model, "prompt": "1", "max_tokens": 1, "temperature": 0}
        try:
            async with self._http.post(f"{self._base}/completions", json=body, timeout=_limit(seconds)) as reply:
                document = await reply.json() if reply.status == 200 else {}
                return bool((document.get("usage") or {}).get("completion_tokens", 0) >= 1)
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return False

    async def metrics(self, seconds: float = 2.0) -> str | None:
        """vLLM's metrics in Prometheus' text form; None where it does not answer."""
        try:
            async with self._http.get(f"{self._root}/metrics", timeout=_limit(seconds)) as reply:
                return await reply.text() if reply.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None

    async def counters(self, seconds: float = 2.0) -> Counters | None:
        """vLLM's counters; None where it does not answer, or has none."""
        text = await self.metrics(seconds)
        return None if text is None else parse_counters(text)

    async def stream(self, question: str, *, max_tokens: int, temperature: float) -> AsyncIterator[Piece]:
        """Pieces of the model's answer as they come; the last one carries the number of tokens.

        Raises:
            ShoalError: refused, or the connection was lost; what had come by then was real.
        """
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": max_tokens,
            "temperature": temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        try:
            async with self._http.post(f"{self._base}/chat/completions", json=body, timeout=_limit(300)) as reply:
                if reply.status != 200:
                    raise ShoalError(f"the engine answered {reply.status}", why=(await reply.text())[:300])
                async for line in reply.content:
                    if piece := stream_piece(line.decode("utf-8", errors="replace")):
                        yield piece
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ShoalError(
                "the engine did not answer", why=str(error) or type(error).__name__, fix="shoal status"
            ) from error


def _limit(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=seconds)


def stream_piece(line: str) -> Piece | None:
    """The piece in one line of a server-sent event stream; None for lines that hold none.

    Raises:
        ShoalError: the line reports an error.
    """
    if not line.startswith("data: ") or line.strip() == "data: [DONE]":
        return None
    try:
        document: dict[str, Any] = json.loads(line[len("data: ") :])
    except ValueError as error:
        raise ShoalError(
            "the engine broke the answer off", why=f"it sent {line[:100]!r}", fix="shoal status"
        ) from error
    if "error" in document:
        raise ShoalError("the engine broke the answer off", why=str(document["error"])[:300], fix="shoal status")
    choices = document.get("choices") or [{}]
    text = str(choices[0].get("delta", {}).get("content") or "")
    tokens = int((document.get("usage") or {}).get("completion_tokens", 0))
    return Piece(text, tokens) if text or tokens else None


NAMES = {
    "tokens": "vllm:generation_tokens_total",
    "prompt": "vllm:prompt_tokens_total",
    "iterations": "vllm:iteration_tokens_total_count",
    "running": "vllm:num_requests_running",
    "waiting": "vllm:num_requests_waiting",
}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def parse_counters(text: str) -> Counters | None:
    """The counters in Prometheus' text, summed over engines; None where there is no count of tokens."""
    sums: dict[str, float] = {}
    for line in text.splitlines():
        name, _, rest = line.partition("{") if "{" in line else line.partition(" ")
        for field, metric in NAMES.items():
            if name == metric:
                sums[field] = sums.get(field, 0.0) + _number(rest.rsplit(" ", 1)[-1])
    return Counters(**sums) if "tokens" in sums else None
