"""One supervisor for one engine: a lock on the state folder, and across hosts a lease at the head's agent."""

import fcntl
import os
import secrets
import socket
import time
from pathlib import Path

import aiohttp

from shoal.agent.lease import RENEW_EVERY
from shoal.engine.clear import Orderer
from shoal.errors import ShoalError
from shoal.host.local import LocalHost

PATIENCE = aiohttp.ClientTimeout(total=1.5)
# A word of the head's agent that is older than this says nothing any more.
STALE = 8.0
ASK_AGAIN = 0.5


class Ownership:
    """Who may run the engine."""

    def __init__(self, state_dir: Path, name: str, address: str, head: str, orders: Orderer) -> None:
        self._path = state_dir / "serve.lock"
        self._id_path = state_dir / "serve.id"
        self._words = f"{name} at {address} (host {socket.gethostname()}, pid {os.getpid()})"
        self._head = head
        self._orders = orders
        self._handle: int | None = None
        self._other = ""
        self._asked = float("-inf")
        self._heard = float("-inf")
        self._id = ""
        self._granted = False

    @property
    def sure(self) -> bool:
        """Whether the head's agent has said lately that the engine is ours."""
        return self._granted and time.monotonic() - self._heard < STALE

    def _lock(self) -> str:
        """Take the folder; who has it in words, empty where it is ours."""
        if self._handle is not None:
            return ""
        handle = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.read(handle, 400).decode("utf-8", errors="replace").strip()
            os.close(handle)
            return f"{owner or 'a supervisor'}, which uses the same state folder {self._path.parent}"
        os.ftruncate(handle, 0)
        os.pwrite(handle, self._words.encode(), 0)
        self._handle = handle
        self._id = self._identity()
        return ""

    def _identity(self) -> str:
        """The same for every supervisor of this folder: one that was killed and comes back is no stranger."""
        host = LocalHost()
        known = (host.read(str(self._id_path)) or "").strip()
        if not known:
            known = secrets.token_hex(16)
            try:
                host.write(str(self._id_path), known + "\n", mode=0o600)
            except (OSError, ShoalError):
                return known
        return known

    async def look(self) -> str:
        """Who else has the engine, in words; empty where nobody does, as far as can be known now."""
        now = time.monotonic()
        try:
            if taken := self._lock():
                return taken
        except OSError:
            pass  # a full disk or a read-only folder must not keep the engine down
        if now - self._asked < (RENEW_EVERY if self.sure else ASK_AGAIN) or not self._orders.allowed:
            return self._other if now - self._heard < STALE else ""
        self._asked = now
        answer = await self._ask(release=False)
        if isinstance(answer, dict):
            self._heard = now
            self._granted = bool(answer.get("granted"))
            self._other = "" if self._granted else str(answer.get("owner") or "somebody")
        return self._other if now - self._heard < STALE else ""

    async def _ask(self, *, release: bool) -> object:
        body = {"id": self._id or self._words, "owner": self._words, "release": release}
        return await self._orders.one(self._head, "lease", body, PATIENCE)

    async def release(self) -> None:
        """Let another one have it at once."""
        if self._handle is not None:
            if self._orders.allowed:
                await self._ask(release=True)
            os.close(self._handle)
            self._handle = None
