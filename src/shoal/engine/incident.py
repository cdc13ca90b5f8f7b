"""Evidence, saved before anything is ended: one folder for each incident, the newest kept, secrets masked."""

import asyncio
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from shoal.agent import evidence
from shoal.engine.clear import EVIDENCE_PATIENCE, Orderer
from shoal.engine.client import EngineClient
from shoal.engine.server import Server
from shoal.host.local import LocalHost
from shoal.log import EventLog
from shoal.state import journal

FOLDER = "incidents"
KEPT = 10
VLLM_TAIL = 512 << 10


def folder_name(why: str, now: float) -> str:
    """Such as ``20261124T221500Z-the-ray-of-worker-1-has-ended``."""
    slug = re.sub(r"[^a-z0-9]+", "-", why.lower()).strip("-")[:48].strip("-")
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}-{slug or 'incident'}"


def safe(name: str) -> str:
    """A file name from a node that cannot leave its folder."""
    return "/".join(re.sub(r"[^\w.@:-]", "_", part) for part in name.split("/") if part not in {"", ".", ".."})


class Incidents:
    """Saves evidence below the state folder."""

    def __init__(self, state_dir: Path, orders: Orderer, client: EngineClient, server: Server, log: EventLog) -> None:
        self._state_dir = state_dir
        self._root = state_dir / FOLDER
        self._orders = orders
        self._client = client
        self._server = server
        self._log = log

    async def save(self, why: str, status: str, nodes: Mapping[str, str], journal_path: Path) -> Path | None:
        """Save all that can be had within seconds; None, and said, where it cannot be written.

        ``nodes`` are names by address, those that may be asked; ``status`` is a document.
        """
        texts = {"why.txt": f"{why}\n", "status.json": status}
        own, told, metrics = await asyncio.gather(
            asyncio.to_thread(self._own, journal_path), self._of_nodes(nodes), self._client.metrics(1.5)
        )
        texts |= own | told | ({"metrics.txt": metrics} if metrics else {})
        target = self._root / folder_name(why, time.time())
        try:
            await asyncio.to_thread(self._write, target, texts)
        except OSError as error:
            self._log("evidence", f"cannot be saved in {target}: {error.strerror}; going on", level="warn")
            return None
        self._log("evidence", f"saved in {target}", path=str(target))
        return target

    def _own(self, journal_path: Path) -> dict[str, str]:
        host, processes = LocalHost(), []
        for pid in self._server.processes():
            try:
                processes.append(psutil.Process(pid))
            except psutil.NoSuchProcess:
                continue
        return {
            "vllm.log": evidence.tail(self._server.path, VLLM_TAIL),
            "stacks.txt": evidence.stacks(host, processes),
            "journal.jsonl": "\n".join(journal.tail(journal_path, 200)) + "\n",
        }

    async def _of_nodes(self, nodes: Mapping[str, str]) -> dict[str, str]:
        if not self._orders.allowed or not nodes:
            return {}
        answers = await self._orders.all(list(nodes), "evidence", EVIDENCE_PATIENCE)
        out: dict[str, str] = {}
        for address, answer in answers.items():
            place = f"nodes/{nodes[address]}"
            if isinstance(answer, dict):
                out |= {f"{place}/{safe(str(name))}": str(text) for name, text in answer.items()}
            else:
                out[f"{place}/missing.txt"] = f"its agent gave none: {str(answer) or type(answer).__name__}\n"
        return out

    def _write(self, target: Path, texts: Mapping[str, str]) -> None:
        for name, text in texts.items():
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=0o600)
            path.write_text(self._log.masked(text), encoding="utf-8")
        for old in sorted(self._root.iterdir())[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
