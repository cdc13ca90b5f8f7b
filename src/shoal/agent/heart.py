"""A worker's heartbeat: it tells its status to the head's agent, and learns from the answer whether the head is still
the cluster that it joined. gRPC health alone does not tell: a new GCS at the old address serves, too.
"""

import asyncio
import time
from collections.abc import Callable

import aiohttp

from shoal.agent.key import bearer
from shoal.agent.peers import BEAT_EVERY
from shoal.state.status import NodeStatus

PATIENCE = aiohttp.ClientTimeout(total=1.0)
FRESH = 3.0
# Stages of a head whose Ray has ended; in all others its cluster's id tells.
WITHOUT_RAY = frozenset({"BACKOFF", "FAILED", "STOPPED"})


class Heart:
    """Beats once a second, and keeps what the head's agent answered last."""

    def __init__(self, url: str, status: Callable[[], NodeStatus], key: Callable[[], str | None]) -> None:
        self._url = url
        self._status = status
        self._key = key
        self._head: NodeStatus | None = None
        self.answered = float("-inf")
        self._refusal = ""

    async def run(self) -> None:
        """Beat for ever; a head that does not answer is no error here, only silence."""
        async with aiohttp.ClientSession(timeout=PATIENCE, trust_env=False) as http:
            while True:
                began = time.monotonic()
                await self._beat(http)
                await asyncio.sleep(max(0.1, BEAT_EVERY - (time.monotonic() - began)))

    async def _beat(self, http: aiohttp.ClientSession) -> None:
        body = self._status().model_dump_json()
        try:
            async with http.post(f"{self._url}/beat", data=body, headers=bearer(self._key())) as reply:
                self._refusal = "" if reply.status == 200 else (await reply.text()).strip()[:200]
                if reply.status == 200:
                    self._head, self.answered = NodeStatus.model_validate_json(await reply.text()), time.monotonic()
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return

    @property
    def reason(self) -> str:
        """Why the head's agent has not answered lately, as far as it is known."""
        return f"its agent at {self._url} {f'refuses: {self._refusal}' if self._refusal else 'does not answer'}"

    def head(self) -> NodeStatus | None:
        """What the head's agent said within the last seconds."""
        return self._head if time.monotonic() - self.answered < FRESH else None

    def heard(self) -> tuple[NodeStatus, float] | None:
        """What the head's agent said last, however long ago, and the seconds since; None before its first word."""
        return (self._head, time.monotonic() - self.answered) if self._head is not None else None


def gone(mine: str | None, head: NodeStatus | None) -> str:
    """Why the cluster that this node joined does not exist any more; empty where nothing says so. Pure."""
    if head is None or mine is None:
        return ""
    if head.ray_cluster_id is not None and head.ray_cluster_id != mine:
        return "the head came back as a new cluster"
    if head.stage in WITHOUT_RAY:
        return f"the head's Ray has ended: {head.detail}" if head.detail else "the head's Ray has ended"
    return ""
