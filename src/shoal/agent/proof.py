"""``GET /proof``: byte counters of this node's HCAs, and what each process says of its NCCL. No secrets."""

import asyncio
import re
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shoal.agent.talk import with_key
from shoal.bench.counters import REQUEST, NodeProof, Process, ports, turned_off
from shoal.facts.parse.net import parse_net
from shoal.facts.parse.rdma import parse_rdma
from shoal.host.base import Host
from shoal.host.gather import gather
from shoal.nccl.log import NcclReader, shown
from shoal.nccl.rank import Rank
from shoal.nccl.variables import parse_version
from shoal.plan.nccl_files import nccl_files

MOST_FILES = 64
PIECE = 4 << 20
PID = re.compile(r"\.(\d+)\.log$")
NEWEST = (2, 99)  # where no NCCL is found, the rules of the newest that is known


@dataclass
class _File:
    """One file as far as it was read."""

    reader: NcclReader
    at: int = 0
    last: bytes = b""
    number: int = 0


class NcclFiles:
    """Reads on in the files that this node's processes write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[Path, _File] = {}

    def remove(self) -> None:
        """Leave nothing."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._files = {}

    def read(self, now: float) -> tuple[Process, ...]:
        """What the newest files say, oldest first; ``now`` in seconds since the epoch."""
        aged = []
        for path in self.folder.glob("*.log"):
            try:
                aged.append((path.stat().st_mtime, path))
            except OSError:
                continue
        newest = sorted(aged)[-MOST_FILES:]
        self._files = {path: self._files.get(path) or _File(NcclReader(path.name)) for _, path in newest}
        return tuple(_process(path, self._read_on(path), now - written) for written, path in newest)

    def _read_on(self, path: Path) -> _File:
        file = self._files[path]
        try:
            with path.open("rb") as source:
                source.seek(file.at)
                data = source.read(PIECE)
        except OSError:
            return file
        whole = data.rfind(b"\n") + 1
        file.at += whole
        for line in data[:whole].splitlines():
            file.number += 1
            file.reader.feed(line, file.number)
            file.last = line or file.last
        return file


def _process(path: Path, file: _File, quiet: float) -> Process:
    found = PID.search(path.name)
    pid = int(found[1]) if found else 0
    told = list(file.reader.ranks.values())
    rank = told[0] if told else Rank(path.name, "", pid)
    return Process(
        file=path.name,
        pid=pid,
        alive=psutil.pid_exists(pid),
        rank=rank.rank,
        ranks=rank.nranks,
        nodes=rank.nodes,
        version=rank.version,
        network=rank.network,
        rdma=rank.rdma,
        gdr=rank.gdr,
        hcas=tuple(rank.hcas),
        transports=dict(rank.channels),
        complete=rank.complete,
        last=shown(file.last),
        quiet_s=round(max(0.0, quiet), 1),
    )


@dataclass(frozen=True)
class Who:
    """The node, and what its ranks inherit."""

    name: str
    address: str
    nccl: str | None
    cpu: bool
    env: Mapping[str, str]


class Prover:
    """Lets NCCL write what it chooses, where there are GPUs, and answers at ``/proof``; one look at a time."""

    def __init__(self, host: Host, who: Who, files: NcclFiles) -> None:
        self._host = host
        self._who = who
        self._files = files
        self._looking = threading.Lock()
        # Ranks on CPUs have no NCCL; and who sets NCCL_DEBUG wants its words elsewhere.
        self._told = () if who.cpu else nccl_files(who.env, files.folder)

    def ranks_env(self) -> dict[str, str]:
        """What this node's ranks inherit: NCCL's words go to files."""
        return {**self._who.env, **{setting.name: setting.value for setting in self._told}}

    def renew(self) -> str:
        """Make room for a new Ray's files; the words that say where they will be, empty where there will be none."""
        self._files.remove()
        if not self._told:
            return ""
        self._files.folder.mkdir(parents=True, exist_ok=True)
        return f"NCCL writes what it chooses to {self._files.folder}, a file for each process"

    def remove(self) -> None:
        """Leave no file."""
        self._files.remove()

    def look(self) -> NodeProof:
        """This node now."""
        with self._looking:
            seen, env = gather(self._host, REQUEST), self._who.env
            version = parse_version(self._who.nccl or "") or NEWEST
            return NodeProof(
                name=self._who.name,
                address=self._who.address,
                taken=time.time(),
                nccl=self._who.nccl,
                cpu=self._who.cpu,
                disabled=turned_off(env),
                ports=ports(parse_rdma(seen), parse_net(seen), env, version),
                processes=self._files.read(time.time()),
            )

    def route(self, key: Callable[[], str | None]) -> Route:
        """``GET /proof``, for who shows the key where there is one."""

        async def proof(_: Request) -> Response:
            told = await asyncio.to_thread(self.look)
            return Response(told.model_dump_json(), media_type="application/json")

        return Route("/proof", with_key(key, proof, needed=False))
