"""What the page asks of others: each agent's readings and journal, and the supervisor's view of the engine."""

import asyncio
import ipaddress
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import aiohttp
from pydantic import BaseModel

from shoal.agent.key import bearer
from shoal.agent.page import cluster
from shoal.spec.env import AgentSettings
from shoal.state import journal
from shoal.state.journal import Entry
from shoal.state.live import ClusterLive, EngineLive, NodeLive
from shoal.state.status import ClusterState, ClusterStatus, EngineStatus, NodeStatus

D = TypeVar("D", bound=BaseModel)
PATIENCE = aiohttp.ClientTimeout(total=1.5)
AT_ONCE = 32
LONGEST = 1 << 22
# The journals of other nodes are asked for less often: what they decide is in their status at once.
JOURNAL_EVERY = 5.0
REMEMBERED = 200
FIRST_LOOK_BACK = 6 * 3600.0
# An engine that was heard this long ago is one whose supervisor is silent.
ENGINE_FRESH = 4.0


def url(address: str, port: int, path: str) -> str:
    """An address with port and path, also for IPv6."""
    return f"http://[{address}]:{port}{path}" if ":" in address else f"http://{address}:{port}{path}"


def is_ip(address: str) -> bool:
    """Whether it is an address; a name that some node says is its own is not looked up."""
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


class Asker:
    """Makes one document of the whole cluster, as often as it is asked to; it remembers the reading before."""

    def __init__(
        self,
        settings: AgentSettings,
        own: Callable[[], NodeStatus],
        heard: Callable[[], tuple[NodeStatus, ...]],
        key: Callable[[], str | None],
        folder: Path,
    ) -> None:
        self._settings = settings
        self._own = own
        self._heard = heard
        self._key = key
        self._folder = folder
        self._before: dict[str, NodeLive] = {}
        self._told: Mapping[str, NodeLive] = {}
        self._engine: EngineLive | None = None
        self._engine_at = float("-inf")
        self._why = "it has not been asked yet"
        self._entries: dict[tuple[float, str, str, str], Entry] = {}
        self._since: dict[str, float] = {}
        self._asked_journals = float("-inf")
        self._read: dict[str, tuple[int, int]] = {}

    async def look(self) -> ClusterLive:
        """All agents and the supervisor, asked at once."""
        own, heard = self._own(), tuple(node for node in self._heard() if is_ip(node.address))
        addresses = list(
            dict.fromkeys([own.address, *(node.address for node in heard), *filter(is_ip, self._expected())])
        )
        connector = aiohttp.TCPConnector(limit=AT_ONCE)
        async with aiohttp.ClientSession(timeout=PATIENCE, trust_env=False, connector=connector) as http:
            told, _ = await asyncio.gather(self._ask_agents(http, addresses), self._ask_engine(http))
            await self._ask_journals(http, [address for address in told if address != own.address])
        # An agent that is asked too soon shows its last reading again: it is still compared with the one before.
        self._before |= {at: old for at, old in self._told.items() if at in told and told[at].at != old.at}
        self._told = told
        status = ClusterStatus(
            cluster=own.name,
            state=ClusterState.STARTING,
            endpoint=self._engine.endpoint or None if self._engine else None,
            nodes=cluster.nodes(own, heard, self._expected(), told),
            engine=self._engine_now(),
        )
        self._read_own_journals()
        return cluster.whole(time.time(), status, (self._before, told), self._engine, self._recent())

    async def engine(self) -> EngineLive | None:
        """What the supervisor said last; asked where nobody has looked yet."""
        if self._engine is None:
            async with aiohttp.ClientSession(timeout=PATIENCE, trust_env=False) as http:
                await self._ask_engine(http)
        return self._engine

    def _expected(self) -> dict[str, int]:
        return self._engine.expected if self._engine else {}

    async def _ask_agents(self, http: aiohttp.ClientSession, addresses: Sequence[str]) -> dict[str, NodeLive]:
        port = self._settings.agent_port
        asked = (self._get(http, url(address, port, "/live"), NodeLive) for address in addresses)
        told = dict(zip(addresses, await asyncio.gather(*asked), strict=True))
        # Only of itself does an agent tell.
        return {at: live for at, live in told.items() if isinstance(live, NodeLive) and live.node.address == at}

    async def _ask_engine(self, http: aiohttp.ClientSession) -> None:
        answer = await self._get(http, url(self._settings.address, self._settings.serve_port, "/live"), EngineLive)
        if isinstance(answer, EngineLive):
            self._engine, self._engine_at = answer, time.monotonic()
        else:
            self._why = answer

    def _engine_now(self) -> EngineStatus:
        if self._engine is not None and time.monotonic() - self._engine_at < ENGINE_FRESH:
            return self._engine.engine
        return cluster.silent_engine(self._engine.engine if self._engine else None, self._why)

    async def _get(self, http: aiohttp.ClientSession, where: str, kind: type[D]) -> D | str:
        try:
            async with http.get(where, headers=bearer(self._key()), allow_redirects=False) as reply:
                return kind.model_validate_json(await _body(reply))
        except aiohttp.ClientConnectorError as error:
            return os.strerror(error.errno).lower() if error.errno else str(error)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            return f"no answer ({type(error).__name__})"

    async def _ask_journals(self, http: aiohttp.ClientSession, addresses: Iterable[str]) -> None:
        if time.monotonic() - self._asked_journals < JOURNAL_EVERY:
            return
        self._asked_journals = time.monotonic()
        for entries in await asyncio.gather(*(self._events(http, address) for address in addresses)):
            self._remember(entries)

    async def _events(self, http: aiohttp.ClientSession, address: str) -> list[Entry]:
        since = self._since.get(address, time.time() - FIRST_LOOK_BACK)
        where = url(address, self._settings.agent_port, f"/events?since={since:.3f}")
        try:
            async with http.get(where, headers=bearer(self._key()), allow_redirects=False) as reply:
                entries = journal.parse_list(await _body(reply)) if reply.status == 200 else []
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return []
        # By that node's own clock, which need not be ours.
        self._since[address] = max([since, *(entry.time for entry in entries)])
        return entries

    def _read_own_journals(self) -> None:
        """This node's and the engine's, where they have grown."""
        for path in sorted((self._folder / journal.FOLDER).glob("*.jsonl")):
            try:
                stat = path.stat()
            except OSError:
                continue
            mark = (stat.st_size, stat.st_mtime_ns)
            if self._read.get(path.name) != mark:
                self._read[path.name] = mark
                self._remember(journal.last(path, REMEMBERED))

    def _remember(self, entries: Iterable[Entry]) -> None:
        self._entries |= {(entry.time, entry.node, entry.kind, entry.words): entry for entry in entries}

    def _recent(self) -> list[Entry]:
        kept = sorted(self._entries)[-REMEMBERED:]
        self._entries = {name: self._entries[name] for name in kept}
        return list(self._entries.values())


async def _body(reply: aiohttp.ClientResponse) -> bytes:
    """The answer; ValueError where it is longer than any that is meant well."""
    data = b""
    async for part in reply.content.iter_any():
        data += part
        if len(data) > LONGEST:
            raise ValueError("too long")
    return data
