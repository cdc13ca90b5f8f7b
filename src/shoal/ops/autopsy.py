"""``shoal autopsy``: ask every agent where its ranks stand, and put it on one page."""

import asyncio
import time

import aiohttp

from shoal.bench import proof
from shoal.bench.counters import NodeProof
from shoal.engine.clear import Orderer
from shoal.engine.proofs import ask_proofs
from shoal.explain.autopsy import Said, page
from shoal.ops.prove import engine
from shoal.ops.where import Reach

PATIENCE = aiohttp.ClientTimeout(total=30.0, connect=1.5)


def autopsy(where: Reach) -> str:
    """The page; what cannot be had is said on it."""
    return asyncio.run(_autopsy(where))


async def _autopsy(where: Reach) -> str:
    orders = Orderer(where.agent_port, lambda: where.key)
    addresses = list(where.addresses)
    status, told, reports, proofs = await asyncio.gather(
        engine(where),
        orders.all(addresses, "stacks", PATIENCE),
        orders.all(addresses, "ras", PATIENCE),
        ask_proofs(addresses, where.agent_port, where.key),
    )
    names = {address: one.name if isinstance(one, NodeProof) else address for address, one in proofs.items()}
    stacks = {names[address]: text for address, text in told.items() if isinstance(text, str)}
    missing = {names[address]: str(text) for address, text in told.items() if not isinstance(text, str)}
    state = f"engine {status.state.value}" + (f": {status.detail}" if status.detail else "")
    ras = next((text for text in reports.values() if isinstance(text, str) and text.strip()), "")  # of the whole job
    taken = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return page(f"Autopsy of {taken}", state, stacks, _said(proofs), missing, ras)


def _said(proofs: dict[str, NodeProof | str]) -> list[Said]:
    return [
        Said(
            node.name,
            f"rank {one.rank}" if one.rank is not None else f"process {one.pid}",
            proof.transport((one,)),
            one.quiet_s,
            one.last,
        )
        for node in proofs.values()
        if isinstance(node, NodeProof)
        for one in node.processes
        if one.alive
    ]
