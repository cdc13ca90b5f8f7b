"""What the engine's traffic goes over, watched while it serves: "serving over TCP" is a fault that nobody else tells.

The log half is judged at every start: what NCCL says on each node. The counter half is judged about once a minute from
the engine's own traffic: where tokens came, RDMA bytes must have moved.
"""

import asyncio
import ipaddress
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from shoal.bench import proof
from shoal.bench.counters import NodeProof
from shoal.engine.proofs import ask_proofs
from shoal.log import EventLog
from shoal.state.status import Transport, TransportStatus

LOOK_EVERY = 10.0
WINDOW = 60.0
ENOUGH_TOKENS = 16


@dataclass(frozen=True)
class Look:
    """All nodes at one moment, with vLLM's counter of tokens; ``at`` in monotonic seconds."""

    at: float
    tokens: float
    nodes: tuple[NodeProof, ...]


def judge(before: Look | None, now: Look) -> TransportStatus:
    """What the traffic goes over, by the log alone, or by the counters too where there was an earlier look. Pure."""
    nodes = tuple(_living(node) for node in now.nodes)
    if why := _stays_local(nodes):
        return TransportStatus(kind=Transport.LOCAL, detail=why)
    if why := proof.nothing_to_prove(nodes):
        return TransportStatus(kind=Transport.TCP, detail=why)
    tokens = int(now.tokens - before.tokens) if before is not None else 0
    judged = proof.judge(before.nodes if before is not None else (), nodes, proof.Traffic(tokens=tokens))
    if judged.verdict == "tcp" and (tokens or _by_log(nodes)):
        return TransportStatus(kind=Transport.TCP, detail=judged.words, degraded=True)
    if judged.verdict == "rdma" and tokens:
        return TransportStatus(kind=Transport.RDMA, detail=f"{judged.words}; {tokens} tokens came meanwhile")
    return _by_words(nodes, judged.words if tokens else "")


def _living(node: NodeProof) -> NodeProof:
    """The node with those processes only that still run: the engine's, not an earlier one's."""
    return node.model_copy(update={"processes": tuple(one for one in node.processes if one.alive)})


def _stays_local(nodes: Sequence[NodeProof]) -> str:
    if len(nodes) < 2:
        return "one node: its traffic crosses no network"
    if all(ipaddress.ip_address(node.address).is_loopback for node in nodes):
        return "all nodes are processes of one machine"
    told = [one for node in nodes for one in node.processes if one.complete and one.nodes]
    if told and all(one.nodes == 1 for one in told):
        return "no rank speaks with one of another node, says NCCL"
    return ""


def _by_log(nodes: Sequence[NodeProof]) -> bool:
    return any(proof.over_sockets(node.processes) for node in nodes)


def _by_words(nodes: Sequence[NodeProof], uncounted: str) -> TransportStatus:
    """By what NCCL says, where the counters have not told yet, or cannot: ``uncounted`` is then why."""
    said = [(node.name, proof.transport(node.processes)) for node in nodes if proof.spoke(node.processes)]
    if said and len(said) == len(nodes):
        names = ", ".join(dict.fromkeys(words for _, words in said))
        bytes_say = "its bytes cannot be counted" if uncounted else "no bytes counted yet"
        return TransportStatus(kind=Transport.RDMA, detail=f"NCCL says {names} on every node; {bytes_say}")
    silent = [node.name for node in nodes if not proof.spoke(node.processes)]
    return TransportStatus(kind=Transport.UNKNOWN, detail=uncounted or f"NCCL has said nothing on {', '.join(silent)}")


Ask = Callable[[], Awaitable[Sequence[NodeProof | str]]]


class TransportWatch:
    """Looks while the engine serves; ``status`` is None while it does not."""

    def __init__(self, ask: Ask, tokens: Callable[[], Awaitable[float | None]], log: EventLog) -> None:
        self._ask = ask
        self._tokens = tokens
        self._log = log
        self._base: Look | None = None
        self.status: TransportStatus | None = None

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.look(time.monotonic())
            await asyncio.sleep(LOOK_EVERY)

    async def look(self, now: float) -> None:
        """Judge by the log at the first token of a start, and by the counters after each window with tokens in it."""
        tokens = await self._tokens()
        if tokens is None or (self._base is not None and tokens < self._base.tokens):
            self._base = self.status = None
        if not tokens:
            return
        base = self._base
        if base is not None and (now - base.at < WINDOW or tokens - base.tokens < ENOUGH_TOKENS):
            return
        answers = await self._ask()
        nodes = tuple(answer for answer in answers if isinstance(answer, NodeProof))
        if len(nodes) < len(answers):
            silent = "; ".join(answer for answer in answers if isinstance(answer, str))
            self._show(TransportStatus(kind=Transport.UNKNOWN, detail=silent))
            return
        self._base = Look(now, tokens, nodes)
        self._show(judge(base, self._base))

    def _show(self, status: TransportStatus) -> None:
        if self.status is None or (status.kind, status.degraded) != (self.status.kind, self.status.degraded):
            self._log("transport", status.detail, level="warn" if status.degraded else "info")
        self.status = status


def ask_agents_of(addresses: Sequence[str], port: int, key: Callable[[], str | None]) -> Ask:
    """Asks those agents; one that does not answer is told with its address."""

    async def ask() -> Sequence[NodeProof | str]:
        told = await ask_proofs(addresses, port, key())
        return [f"{address}: {answer}" if isinstance(answer, str) else answer for address, answer in told.items()]

    return ask
