"""Many agents asked at once: not too many, and each with a patience of its own."""

import asyncio

import aiohttp
import pytest

from shoal.engine import agents
from shoal.engine.agents import WIDTH, ask_agents
from shoal.state.status import NodeStatus


def test_agents_are_asked_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a thousand agents only so many are asked at a time, and every one of them is."""
    now, most = 0, 0

    async def ask(http: aiohttp.ClientSession, address: str, port: int) -> NodeStatus | str:
        nonlocal now, most
        assert isinstance(http.connector, aiohttp.TCPConnector)
        assert http.connector.limit == 0  # nobody waits for a connection while his patience runs
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        return f"{address}:{port}"

    monkeypatch.setattr(agents, "_ask", ask)
    addresses = [f"10.0.{n // 250}.{n % 250}" for n in range(1000)]
    assert asyncio.run(ask_agents(addresses, 8700)) == {address: f"{address}:8700" for address in addresses}
    assert most == WIDTH
