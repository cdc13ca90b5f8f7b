"""What the agents say of their nodes."""

import asyncio
import errno
import os
from collections.abc import Sequence

import aiohttp

from shoal.state.status import NodeStatus

PATIENCE = aiohttp.ClientTimeout(total=1.5)
# At once: so many that this process, on a busy machine too, reads each answer in time. Patience begins with the turn.
WIDTH = 128


UNREACHABLE = frozenset(os.strerror(number).lower() for number in (errno.EHOSTUNREACH, errno.ENETUNREACH))


def is_silence(reason: str) -> bool:
    """Whether the reason is that nothing came back at all. A refusal is an answer: that agent has ended."""
    return reason.startswith("no answer") or reason in UNREACHABLE


async def ask_agents(addresses: Sequence[str], port: int) -> dict[str, NodeStatus | str]:
    """By address: the agent's status, or the reason why there is none. All are asked at once, or nearly."""
    turn = asyncio.Semaphore(WIDTH)

    async def ask(address: str) -> NodeStatus | str:
        async with turn:
            return await _ask(http, address, port)

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=PATIENCE, trust_env=False, connector=connector) as http:
        answers = await asyncio.gather(*map(ask, addresses))
    return dict(zip(addresses, answers, strict=True))


async def _ask(http: aiohttp.ClientSession, address: str, port: int) -> NodeStatus | str:
    host = f"[{address}]" if ":" in address else address
    try:
        async with http.get(f"http://{host}:{port}/status") as reply:
            return NodeStatus.model_validate_json(await reply.text())
    except aiohttp.ClientConnectorError as error:
        return os.strerror(error.errno).lower() if error.errno else str(error)
    except TimeoutError:
        return f"no answer within {PATIENCE.total:g} s"
    except (aiohttp.ClientError, ValueError) as error:
        return f"an answer that is none: {type(error).__name__}"
