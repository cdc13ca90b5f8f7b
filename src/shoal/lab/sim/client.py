"""The API server's end of the engine core: requests go in, tokens come out."""

import asyncio
import itertools
import multiprocessing
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

from shoal.lab.sim.core import Sizes
from shoal.lab.sim.core import main as core_main
from shoal.lab.sim.metrics import Metrics

KV_TOKENS = 10_000.0


class EngineDead(Exception):
    """The engine core has ended; vLLM calls it EngineDeadError."""


class Engine:
    """Starts the engine core and talks to it."""

    def __init__(self, sizes: Sizes, metrics: Metrics) -> None:
        self._metrics = metrics
        self._numbers = itertools.count()
        self._queues: dict[str, asyncio.Queue[tuple[str, bool] | None]] = {}
        self._pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=core_main, args=(theirs, sizes), name="EngineCore")
        self._process.start()
        theirs.close()
        self.dead = ""

    def wait_ready(self) -> bool:
        """Whether the engine core became ready; it ended where not."""
        try:
            message = self._pipe.recv()
        except EOFError:
            return False
        return bool(message[0] == "ready")

    def follow(self, loop: asyncio.AbstractEventLoop, on_death: asyncio.Event) -> None:
        """Read what the engine core says in a thread of its own."""

        def read() -> None:
            try:
                while True:
                    loop.call_soon_threadsafe(self._said, self._pipe.recv(), on_death)
            except (EOFError, OSError):
                loop.call_soon_threadsafe(self._said, ("dead", "the engine core has ended"), on_death)
            except RuntimeError:  # the loop is closed: the server has ended
                return

        threading.Thread(target=read, daemon=True).start()

    def _said(self, message: tuple[Any, ...], on_death: asyncio.Event) -> None:
        kind, *rest = message
        if kind == "step":
            self._metrics.iteration.observe(rest[0])
        elif kind == "token" and (queue := self._queues.get(rest[0])) is not None:
            queue.put_nowait((rest[1], rest[2]))
        elif kind == "dead":
            self.dead = self.dead or rest[0]
            on_death.set()
            for queue in self._queues.values():
                queue.put_nowait(None)

    async def generate(self, prompt: str, wanted: int, counted: int) -> AsyncIterator[str]:
        """The tokens of an answer as they come.

        Raises:
            EngineDead: the engine core ended meanwhile.
        """
        if self.dead:
            raise EngineDead(self.dead)
        name = str(next(self._numbers))
        queue: asyncio.Queue[tuple[str, bool] | None] = asyncio.Queue()
        self._queues[name] = queue
        self._count(+1, counted)
        began = last = time.monotonic()
        first, how = True, "abort"
        try:
            self._pipe.send(("add", name, prompt, wanted))
            over = False
            while not over:
                piece = await queue.get()
                if piece is None:
                    raise EngineDead(self.dead)
                text, over = piece
                now = time.monotonic()
                (self._metrics.first_token if first else self._metrics.between).observe(now - last)
                last, first = now, False
                self._metrics.generated.inc()
                yield text
            how = "length"
        except BrokenPipeError as error:
            raise EngineDead("the engine core has ended") from error
        finally:
            del self._queues[name]
            self._count(-1, 0)
            self._ended(how, time.monotonic() - began)
            if not self.dead:
                self._pipe.send(("abort", name))

    def _ended(self, how: str, seconds: float) -> None:
        self._metrics.ended[how].inc()
        self._metrics.whole.observe(seconds)
        self._metrics.queued.observe(0)

    def _count(self, change: int, counted: int) -> None:
        self._metrics.running.inc(change)
        self._metrics.prompted.inc(counted)
        self._metrics.kv_cache.set(min(1.0, 100.0 * len(self._queues) / KV_TOKENS))

    def stop(self) -> None:
        """End the engine core; Ray ends its ranks and frees the placement group."""
        self._process.terminate()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(5)
