"""A planned restart: new requests are turned away, running ones finish, and nodes are renewed one after the other."""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import aiohttp

from shoal.engine.clear import Orderer
from shoal.engine.client import EngineClient
from shoal.engine.guard import DRAINING
from shoal.engine.nodes import Nodes
from shoal.log import EventLog

PATIENCE = aiohttp.ClientTimeout(total=5.0)


def hold_back(state_dir: Path, *, on: bool) -> None:
    """Let the guard turn new requests away, or let them in again."""
    path = state_dir / DRAINING
    try:
        if on:
            path.touch(mode=0o600)
        else:
            path.unlink(missing_ok=True)
    except OSError:
        return  # a full disk: then requests are broken off, which the restart does anyway


async def drained(client: EngineClient) -> None:
    """Return once no request is left, or the server tells no more. A request that just came in is looked for twice."""
    quiet = 0
    while quiet < 2:
        counters = await client.counters(2.0)
        if counters is None:
            return
        quiet = quiet + 1 if counters.idle else 0
        await asyncio.sleep(0.3)


async def renew(
    addresses: Sequence[str], nodes: Callable[[], Nodes], orders: Orderer, log: EventLog, patience: float
) -> None:
    """Let each of these nodes leave its Ray and join again; the next one begins when the one before it is up."""
    for address in addresses:
        word = nodes().words.get(address)
        before = word.status.member if word else None
        answer = await orders.one(address, "leave", None, PATIENCE)
        if isinstance(answer, Exception):
            log("renew", f"{address}: {answer}; left as it is", level="warn")
            continue
        new = await _wait_new(nodes, address, before, patience)
        words = "has a new Ray" if new else f"has no new Ray within {patience:g} s"
        log("renew", f"{address} {words}", level="info" if new else "warn")


async def _wait_new(nodes: Callable[[], Nodes], address: str, before: str | None, patience: float) -> bool:
    end = time.monotonic() + patience
    for _ in range(int(patience / 0.2) + 1):
        if _is_new(nodes(), address, before) or time.monotonic() > end:
            break
        await asyncio.sleep(0.2)
    return _is_new(nodes(), address, before)


def _is_new(nodes: Nodes, address: str, before: str | None) -> bool:
    return any(node.address == address and node.member != before for node in nodes.up)
