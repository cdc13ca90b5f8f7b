"""Ask the model of a running cluster."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from shoal.engine.client import Answer, EngineClient
from shoal.errors import NotRunning, ShoalError
from shoal.state.run import RunRecord


def api_key(record: RunRecord) -> str:
    """The cluster's API key.

    Raises:
        ShoalError: the file with the key cannot be read.
    """
    try:
        return Path(record.api_key_file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ShoalError(f"cannot read the API key in {record.api_key_file}", why=str(error)) from error


def require(record: RunRecord | None) -> RunRecord:
    """The record, or NotRunning where there is none."""
    if record is None:
        raise NotRunning("no cluster is up", fix="shoal up --local")
    return record


def ask(
    record: RunRecord,
    question: str,
    *,
    max_tokens: int = 256,
    temperature: float = 0.0,
    on_text: Callable[[str], None] = lambda _: None,
) -> Answer:
    """The model's answer; ``on_text`` gets each piece as it comes.

    Raises:
        ShoalError: the engine refused, broke off, or does not answer.
    """
    return asyncio.run(_ask(record, question, max_tokens, temperature, on_text))


async def _ask(
    record: RunRecord, question: str, max_tokens: int, temperature: float, on_text: Callable[[str], None]
) -> Answer:
    began = time.monotonic()
    texts: list[str] = []
    tokens = 0
    async with EngineClient(record.endpoint, api_key(record), record.model) as client:
        async for piece in client.stream(question, max_tokens=max_tokens, temperature=temperature):
            on_text(piece.text)
            texts.append(piece.text)
            tokens = piece.tokens or tokens
    return Answer("".join(texts), tokens, time.monotonic() - began)
