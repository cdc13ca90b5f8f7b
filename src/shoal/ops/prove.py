"""``shoal prove``: look at every node's counters, drive traffic, look again."""

import asyncio
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from shoal.bench import fabric, proof
from shoal.bench.counters import NodeProof
from shoal.bench.proof import MESSAGE, Proof, Traffic
from shoal.engine.client import EngineClient
from shoal.engine.proofs import ask_proofs
from shoal.errors import HostUnreachable, PreconditionFailed, ShoalError
from shoal.host.local import LocalHost
from shoal.ops.where import Reach
from shoal.state.status import EngineState, EngineStatus

STREAMS = 8
COMMAND_SECONDS = 3600.0
QUESTION = "Count from one to a thousand, in words, and do not stop before."
LARGEST = 4 * MESSAGE
QUICK = aiohttp.ClientTimeout(total=8.0)
Say = Callable[[str], None]
Target = Callable[[], tuple[str, Mapping[str, str]]]  # address of the GCS, and the environment of a driver for it


@dataclass(frozen=True)
class Wish:
    """What traffic is to be driven: ``kind`` is ``engine``, ``bench`` or ``command``; empty: what there is."""

    kind: str = ""
    seconds: float = 10.0
    expected: int = 0
    command: tuple[str, ...] = ()


def prove(where: Reach, target: Target, wish: Wish, say: Say) -> Proof:
    """The verdict on the cluster.

    Raises:
        HostUnreachable: an agent does not answer.
        ShoalError: the traffic could not be driven.
    """
    before = look(where)
    if why := proof.nothing_to_prove(before):
        return Proof("nothing", why, (), ())
    wish = choose(where, wish)
    traffic = _drive(where, target, wish, say)
    after = [_counting(node, before, wish) for node in look(where)]
    return proof.judge(before, after, traffic)


def look(where: Reach) -> tuple[NodeProof, ...]:
    """Every node now.

    Raises:
        HostUnreachable: an agent does not answer.
    """
    told = asyncio.run(ask_proofs(where.addresses, where.agent_port, where.key))
    silent = {address: answer for address, answer in told.items() if isinstance(answer, str)}
    if silent:
        why = "; ".join(f"{address}: {answer}" for address, answer in silent.items())
        raise HostUnreachable("not every node tells its counters", why=why, fix="shoal status   # which nodes are up")
    return tuple(answer for answer in told.values() if isinstance(answer, NodeProof))


def _counting(node: NodeProof, before: Sequence[NodeProof], wish: Wish) -> NodeProof:
    """The node with the processes that made the traffic: the engine's living ones, or the bench's new ones."""
    if wish.kind == "command":
        return node.model_copy(update={"processes": ()})
    known = {one.file for earlier in before if earlier.address == node.address for one in earlier.processes}
    kept = [one for one in node.processes if (one.file not in known if wish.kind == "bench" else one.alive)]
    return node.model_copy(update={"processes": tuple(kept)})


def choose(where: Reach, wish: Wish) -> Wish:
    """The wish with its kind: a command where one is given, the engine while it serves, else the bench."""
    if wish.kind:
        return wish
    kind = "command" if wish.command else "engine" if asyncio.run(engine(where)).state is EngineState.READY else "bench"
    return Wish(kind, wish.seconds, wish.expected, wish.command)


async def engine(where: Reach) -> EngineStatus:
    """The engine as its supervisor says; unready where that one does not answer."""
    try:
        async with (
            aiohttp.ClientSession(timeout=QUICK, trust_env=False) as http,
            http.get(f"{where.serve_url}/status") as reply,
        ):
            return EngineStatus.model_validate_json(await reply.text())
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        return EngineStatus(state=EngineState.UNREADY, model="", detail=str(error) or type(error).__name__)


def _drive(where: Reach, target: Target, wish: Wish, say: Say) -> Traffic:
    if wish.kind == "command":
        return _command(wish, say)
    if wish.kind == "bench":
        return _bench(target, say)
    return Traffic(tokens=asyncio.run(_engine(where, wish.seconds, say)))


def _command(wish: Wish, say: Say) -> Traffic:
    result = LocalHost().stream(wish.command, timeout=COMMAND_SECONDS, on_line=say)
    if result.code != 0:
        why = f"code {result.code}: {result.err.strip().rpartition(chr(10))[2]}"
        raise ShoalError(f"{wish.command[0]} failed, and nothing is proven", why=why)
    return Traffic(expected=wish.expected)


def _bench(target: Target, say: Say) -> Traffic:
    say(f"all_reduce with messages of {MESSAGE >> 20} and {LARGEST >> 20} MiB between all GPUs")
    rows: list[dict[str, Any]] = []
    address, environment = target()
    sizes = fabric.Wish(LARGEST, ("all_reduce",), 0, MESSAGE)
    fabric.run(sys.executable, address, environment, sizes, rows.append)
    return Traffic(expected=driven(rows))


def driven(rows: Sequence[Mapping[str, Any]]) -> int:
    """Bytes that an all_reduce moves through each of two nodes or more: at least its size, whatever the algorithm."""
    return sum(row["size"] * row["operations"] for row in rows if "operations" in row)


async def _engine(where: Reach, seconds: float, say: Say) -> int:
    """Stream long answers for some seconds; the number of pieces that came."""
    status = await engine(where)
    if status.state is not EngineState.READY:
        fix = "shoal status; or drive it otherwise: --traffic bench, or --bytes N -- COMMAND"
        raise PreconditionFailed("the engine does not serve", why=status.detail or status.state.value, fix=fix)
    say(f"{STREAMS} long answers for {seconds:g} s")
    key = (LocalHost().read(where.api_key_file) or "").strip() if where.api_key_file else ""
    end = time.monotonic() + seconds
    async with EngineClient(where.endpoint, key, status.model) as client:
        counts = await asyncio.gather(*(_stream(client, end) for _ in range(STREAMS)))
    if not sum(counts):
        raise ShoalError("no token came, and nothing is proven", fix="shoal status")
    return sum(counts)


async def _stream(client: EngineClient, end: float) -> int:
    pieces = 0
    while time.monotonic() < end:
        async for _ in client.stream(QUESTION, max_tokens=256, temperature=0.8):
            pieces += 1
            if time.monotonic() > end:
                break
    return pieces
