"""Asking for tokens: what vLLM's counters say, and a request for one token where none was seen lately."""

import asyncio
import time

from shoal.engine.client import EngineClient, parse_counters
from shoal.engine.serving import Served
from shoal.engine.watch import PROBE_EVERY, Counters, Probes, Tokens

PROBE_SECONDS = 10.0
COUNTERS_SECONDS = 2.0
LOOK_EVERY = 1.0


class TokenWatch:
    """Keeps what is known of tokens."""

    def __init__(self, client: EngineClient) -> None:
        self._client = client
        self._asking = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self.tokens = Tokens()
        self.probes = Probes()
        self.served = Served()

    async def first(self) -> bool:
        """Ask for the first token of a start."""
        produced = await self._probe(PROBE_SECONDS)
        if produced:
            self.tokens = self.tokens.probed(produced=True, now=time.monotonic())
        return produced

    def begin(self) -> None:
        """Look for tokens from now on, beside whatever else is done: a probe may hang for seconds."""
        self._task = asyncio.create_task(self._run())

    async def end(self) -> None:
        """Look no more, and forget."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None
        self.tokens, self.served = Tokens(), Served()

    async def _run(self) -> None:
        while True:
            await self.look(time.monotonic() - PROBE_EVERY, PROBE_SECONDS)
            await asyncio.sleep(LOOK_EVERY)

    async def look(self, since: float, patience: float) -> None:
        """Look for a token where none was seen after ``since`` (monotonic seconds); ask for one if need be."""
        async with self._asking:
            # Counters come at once or not at all: a server that is stopped must not cost a probe's patience twice.
            counters = await self._counters(min(patience, COUNTERS_SECONDS))
            self.tokens = self.tokens.looked(counters, time.monotonic())
            if self.tokens.producing_since(since):
                return
            produced = await self._probe(patience)
            self.tokens = self.tokens.probed(produced=produced, now=time.monotonic())
            if not produced:
                # A full queue is no wedge: other requests' tokens count as well.
                self.tokens = self.tokens.looked(await self._counters(1.0), time.monotonic())

    async def _counters(self, patience: float) -> Counters | None:
        text = await self._client.metrics(patience)
        if text is None:
            return None
        self.served = self.served.take(text, time.monotonic())
        return parse_counters(text)

    async def _probe(self, patience: float) -> bool:
        asked = time.monotonic()
        produced = await self._client.one_token(patience)
        self.probes = self.probes.asked(time.monotonic() - asked, produced=produced)
        return produced

    def excuse(self) -> None:
        """A node is silent: no token can come, and that is no wedge."""
        self.tokens = self.tokens.excused(time.monotonic())
