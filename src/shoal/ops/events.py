"""What happened, node by node: the journals of a cluster as one."""

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import aiohttp

from shoal.agent.key import bearer, cluster_key
from shoal.errors import NotRunning, UsageError
from shoal.host.local import LocalHost
from shoal.state import journal
from shoal.state.journal import Entry

PATIENCE = aiohttp.ClientTimeout(total=5.0)
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def moment(text: str, now: float) -> float:
    """``10m``, ``2h``, ``1d`` before now, or seconds since the epoch.

    Raises:
        UsageError: it is neither.
    """
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip()):
        return now - float(found[1]) * UNITS[found[2]]
    try:
        return float(text)
    except ValueError as error:
        what = f"--since {text!r}: expected a number with s, m, h or d, or seconds since the epoch"
        raise UsageError(what, fix="--since 10m") from error


def addresses(env: Mapping[str, str]) -> tuple[str, ...]:
    """The nodes whose agents are to be asked: those of SHOAL_EXPECT, and this one."""
    named = [item.strip().partition(":")[0] for item in env.get("SHOAL_EXPECT", "").split(",")]
    own = env.get("VLLM_HOST_IP", "").strip()
    return tuple(dict.fromkeys(address for address in (own, *named) if address))


def gather(folder: Path, env: Mapping[str, str], since: float) -> list[Entry]:
    """All events since that moment: from the journals in the state folder, and from other nodes' agents.

    Raises:
        NotRunning: there is no journal, and nobody to ask.
    """
    own = journal.read_folder(folder, since)
    asked = addresses(env)
    told = asyncio.run(_ask_all(asked, env, since)) if asked else []
    if not own and not told and not (folder / journal.FOLDER).is_dir():
        raise NotRunning("there are no events: no cluster was up here yet", fix="shoal up --local")
    return unique(journal.merge([own, told]))


def unique(entries: Sequence[Entry]) -> list[Entry]:
    """Each entry once: a node's own journal may have been read and asked for."""
    seen: dict[str, Entry] = {}
    for entry in entries:
        seen.setdefault(entry.line(), entry)
    return list(seen.values())


async def _ask_all(asked: Sequence[str], env: Mapping[str, str], since: float) -> list[Entry]:
    port = env.get("SHOAL_AGENT_PORT", "").strip() or "8700"
    headers = bearer(cluster_key(LocalHost(), env))
    async with aiohttp.ClientSession(timeout=PATIENCE, trust_env=False, headers=headers) as http:
        answers = await asyncio.gather(*(_ask(http, address, port, since) for address in asked))
    return [entry for answer in answers for entry in answer]


async def _ask(http: aiohttp.ClientSession, address: str, port: str, since: float) -> list[Entry]:
    host = f"[{address}]" if ":" in address else address
    try:
        async with http.get(f"http://{host}:{port}/events", params={"since": f"{since:.3f}"}) as reply:
            if reply.status == 200:
                return [Entry(**item) for item in await reply.json()]
            words = f"its agent answers {reply.status}: {(await reply.text()).strip()}"
    except (aiohttp.ClientError, TimeoutError, ValueError, TypeError) as error:
        words = f"its agent does not answer: {str(error) or type(error).__name__}"
    return [Entry(time.time(), address, "silent", words, "warn")]


def follow(read: Callable[[float], list[Entry]], since: float, pause: float = 0.5) -> Iterator[Entry]:
    """Events since that moment and those to come, for ever: the reader ends it. ``read`` has those since a moment."""
    told: set[str] = set()
    while True:
        for entry in read(since):
            if entry.kind != "silent" and entry.line() not in told:
                told.add(entry.line())
                yield entry
        # Entries of one moment may be written a moment apart: look back a little, and pass over what was told.
        since = max(since, time.time() - 60.0)
        told = {line for line in told if (kept := journal.parse(line)) and kept.time >= since}
        time.sleep(pause)


def row(entry: Entry, width: int) -> str:
    """An entry as one line for people, in local time."""
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.time))
    mark = {"warn": "warning: ", "error": "error: "}.get(entry.level, "")
    words = "; ".join(entry.words.splitlines())
    return f"{clock}  {entry.node:<{width}}  {entry.kind:<10} {mark}{words}"
