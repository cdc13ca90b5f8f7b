"""What the agents say of their RDMA traffic: ``/proof`` of every node, asked at once."""

import asyncio
from collections.abc import Sequence

import aiohttp
from pydantic import ValidationError

from shoal.agent.key import bearer
from shoal.bench.counters import NodeProof

PATIENCE = aiohttp.ClientTimeout(total=10.0, connect=1.5)


async def ask_proofs(addresses: Sequence[str], port: int, key: str | None) -> dict[str, NodeProof | str]:
    """By address: the agent's answer, or the reason why there is none."""
    async with aiohttp.ClientSession(timeout=PATIENCE, trust_env=False, headers=bearer(key)) as http:
        answers = await asyncio.gather(*(_ask(http, address, port) for address in addresses))
    return dict(zip(addresses, answers, strict=True))


async def _ask(http: aiohttp.ClientSession, address: str, port: int) -> NodeProof | str:
    host = f"[{address}]" if ":" in address else address
    try:
        async with http.get(f"http://{host}:{port}/proof") as reply:
            if reply.status != 200:
                return f"its agent answers {reply.status}: {(await reply.text()).strip()[:200]}"
            return NodeProof.model_validate_json(await reply.text())
    except ValidationError:
        return "its agent's answer is none that this version understands"
    except (aiohttp.ClientError, TimeoutError) as error:
        return f"its agent: {str(error) or type(error).__name__}"
