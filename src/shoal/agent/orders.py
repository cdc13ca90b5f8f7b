"""Orders of the engine's supervisor to this node: show evidence, end the engine's ranks, leave Ray, reset.

They act, so nobody gives one without the cluster's key; where no key can be made, there are no orders. All of them
concern what this agent started itself, and nothing else on the machine.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from shoal.agent import evidence, ranks, ras
from shoal.agent.executor import Executor
from shoal.agent.lease import Lease
from shoal.agent.ranks import Segment
from shoal.agent.talk import Handler, body_of, with_key
from shoal.host.base import Host
from shoal.log import EventLog
from shoal.state import journal


@dataclass(frozen=True)
class Node:
    """What the orders work with: this node's part of the engine, and its files."""

    name: str
    logs: Path
    temp_dir: Path
    journal: Path
    executor: Executor
    order: Callable[[str], None]
    visible: str = ""  # CUDA_VISIBLE_DEVICES


class Orders:
    """Carries out the supervisor's orders, one at a time."""

    def __init__(self, host: Host, node: Node, log: EventLog, ras: Callable[[], str] = ras.report) -> None:
        self._host = host
        self._node = node
        self._log = log
        self._ras = ras
        self._busy = asyncio.Lock()
        self._segments: set[Segment] = set()
        self._lease = Lease()

    def notice(self) -> None:
        """Remember which shared memory the ranks use: one that is killed can no longer be asked."""
        pids = [process.pid for process in self._node.executor.ranks()]
        self._segments |= ranks.segments(pids)

    async def end(self) -> dict[str, Any]:
        """End the engine's ranks here, and say what is verified: processes, shared memory, GPUs."""
        async with self._busy:
            self.notice()
            found = self._node.executor.ranks()
            self._node.executor.release()
            left = await ranks.end_ranks(found)
            removed = ranks.remove(self._segments, ranks.segments(process.pid for process in left))
            self._segments = set()
            held = await ranks.wait_until_free(self._host, [process.pid for process in found], self._node.visible)
        names = [f"{ranks.title(process) or process.name()} (pid {process.pid})" for process in left]
        if found:
            words = f"ended {len(found) - len(left)} process(es) of the engine"
            self._log("end", words + (f"; still there: {', '.join(names)}" if left else ""), removed=removed)
        return {
            "ended": len(found) - len(left),
            "left": names,
            "held": [f"{app.name} (pid {app.pid}, {_mib(app.used_mib)})" for app in held],
            "shared_memory": removed,
        }

    def evidence(self) -> dict[str, str]:
        """Texts by file name: the stacks of every rank, NCCL's own report, logs, counters, the end of the journal."""
        node = self._node
        texts = {f"logs/{name}": text for name, text in evidence.logs(node.logs, node.name, node.temp_dir).items()}
        if told := self._ras():
            texts["ras.txt"] = told
        texts["stacks.txt"] = evidence.stacks(self._host, node.executor.ranks())
        texts["counters.txt"] = evidence.counters()
        texts["journal.jsonl"] = "\n".join(journal.tail(node.journal, 200)) + "\n"
        return {name: self._log.masked(text) for name, text in texts.items()}

    def routes(self, key: Callable[[], str | None]) -> tuple[Route, ...]:
        """``POST /orders/...``; each is for who shows the key."""

        async def end(_: Request) -> Response:
            return JSONResponse(await self.end())

        async def show(_: Request) -> Response:
            return JSONResponse(await asyncio.to_thread(self.evidence))

        async def stacks(_: Request) -> Response:
            found = self._node.executor.ranks()
            return PlainTextResponse(self._log.masked(await asyncio.to_thread(evidence.stacks, self._host, found)))

        async def ras(_: Request) -> Response:
            return PlainTextResponse(self._log.masked(await asyncio.to_thread(self._ras)))

        async def leave(_: Request) -> Response:
            self._node.order("leave")
            return PlainTextResponse("this node leaves its Ray and joins again\n")

        async def reset(_: Request) -> Response:
            self._node.order("reset")
            return PlainTextResponse("the breaker is closed\n")

        async def lease(request: Request) -> Response:
            try:
                asked = json.loads(await body_of(request))
                granted, owner = self._lease.ask(str(asked["id"]), str(asked["owner"]), release=bool(asked["release"]))
            except (ValueError, KeyError, TypeError):
                return PlainTextResponse("expected id, owner and release\n", 400)
            return JSONResponse({"granted": granted, "owner": owner})

        handlers: dict[str, Handler] = {"end": end, "evidence": show, "stacks": stacks, "ras": ras}
        handlers |= {"leave": leave, "reset": reset, "lease": lease, **self._node.executor.orders()}
        return tuple(
            Route(f"/orders/{name}", with_key(key, handler, needed=True), methods=["POST"])
            for name, handler in handlers.items()
        )


def _mib(value: int | None) -> str:
    return "memory not told" if value is None else f"{value:,} MiB"
