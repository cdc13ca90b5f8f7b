"""Looks at the whole cluster while somebody watches, and tells all who do the same.

What goes to a browser is one JSON document, and then only what has changed in it, as a merge patch (RFC 7396): with 128
nodes that is a tenth of the whole, and it is made once, however many watch.
"""

import asyncio
import functools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from shoal.state.live import ClusterLive

MOST_VIEWERS = 64
# Nobody watches 128 nodes second by second: a look at more nodes comes less often.
SHORTEST, LONGEST, NODES_PER_SECOND = 1.0, 5.0, 50
FRESH = 1.0

# Totals grow at every look, and the page draws what is made of them.
UNSHOWN = frozenset({"received_bytes_total", "sent_bytes_total", "link_layer", "uuid"})

Tree = dict[str, Any]


def tree(live: ClusterLive) -> Tree:
    """The document for the browser: nodes by address, GPUs by index, ports by name, rates beside their port."""
    whole = live.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    rates: dict[tuple[str, str, int], Tree] = {}
    for rail in whole.pop("rails", ()):
        rates[rail.pop("node"), rail.pop("device"), rail.pop("port")] = rail
    nodes = {}
    for node in whole.pop("nodes", ()):
        name = node["node"]["name"]
        hcas = {
            f"{one['device']}/{one['port']}": _without(one, UNSHOWN) | rates.get((name, one["device"], one["port"]), {})
            for one in node.pop("hcas", ())
        }
        gpus = {str(one["index"]): _without(one, UNSHOWN) for one in node.pop("gpus", ())}
        node.pop("at", None)
        node.pop("heartbeats", None)
        nodes[node["node"]["address"]] = node | {"gpus": gpus, "hcas": hcas}
    whole["status"].pop("nodes", None)
    return whole | {"nodes": nodes}


def _without(part: Tree, names: frozenset[str]) -> Tree:
    return {name: value for name, value in part.items() if name not in names}


def patch(before: Tree, after: Tree) -> Tree:
    """The merge patch that turns one document into the other. None never stands in a document: it removes a key."""
    out: Tree = {name: None for name in before if name not in after}
    for name, value in after.items():
        old = before.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            if deeper := patch(old, value):
                out[name] = deeper
        elif value != old:
            out[name] = value
    return out


def frame(event: str, document: Tree) -> bytes:
    """One server-sent event."""
    return f"event: {event}\ndata: {json.dumps(document, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


class Watch:
    """The one who looks for all viewers."""

    def __init__(self, look: Callable[[], Awaitable[ClusterLive]], clock: Callable[[], float] = time.monotonic) -> None:
        self._look = look
        self._clock = clock
        self._viewers = 0
        self._task: asyncio.Task[None] | None = None
        self._looking = asyncio.Lock()
        self._live: ClusterLive | None = None
        self._at = float("-inf")
        self._tree: Tree = {}
        self._whole = self._patch = b""
        self._number = 0
        self._moved = asyncio.Condition()
        self._closed = False

    @property
    def full(self) -> bool:
        """Whether there are as many viewers as may be."""
        return self._viewers >= MOST_VIEWERS

    async def view(self) -> ClusterLive:
        """The cluster now; what was seen less than a second ago is seen as now."""
        async with self._looking:
            if self._live is None or self._clock() - self._at > FRESH:
                self._live, self._at = await self._look(), self._clock()
            return self._live

    async def follow(self) -> AsyncIterator[bytes]:
        """Frames for one viewer: the whole document, then what changes in it; whole again for one who fell behind."""
        self._viewers += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        seen = 0
        try:
            yield b"retry: 1000\n\n"
            while not self._closed:
                async with self._moved:
                    await self._moved.wait_for(functools.partial(self._is_news, seen))
                if self._closed:
                    return
                part = self._patch if seen and seen == self._number - 1 else self._frame()
                seen = self._number
                yield part
        finally:
            self._viewers -= 1

    def _is_news(self, seen: int) -> bool:
        return self._closed or (self._number > seen and bool(self._tree))

    def _frame(self) -> bytes:
        if not self._whole:
            self._whole = frame("whole", self._tree)
        return self._whole

    async def _run(self) -> None:
        """Look until nobody watches any more."""
        while self._viewers and not self._closed:
            began = self._clock()
            live = await self.view()
            await self._publish(tree(live))
            pace = min(LONGEST, max(SHORTEST, len(live.nodes) / NODES_PER_SECOND))
            await asyncio.sleep(max(0.2, pace - (self._clock() - began)))
        self._tree = {}

    async def _publish(self, now: Tree) -> None:
        async with self._moved:
            self._patch, self._whole = frame("patch", patch(self._tree, now)), b""
            self._tree = now
            self._number += 1
            self._moved.notify_all()

    async def close(self) -> None:
        """Send all viewers home: the agent ends, and an open stream would hold its endpoint."""
        async with self._moved:
            self._closed = True
            self._moved.notify_all()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
