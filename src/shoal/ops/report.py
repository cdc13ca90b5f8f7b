"""``shoal report``: what is known of a cluster, gathered once, for one page that tells it."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import aiohttp
from pydantic import BaseModel, TypeAdapter, ValidationError

from shoal.agent.key import bearer, derive
from shoal.bench.counters import NodeProof
from shoal.bench.fabric import read_document
from shoal.bench.measure import Measured
from shoal.bench.proof import Proof
from shoal.checks.run import Choice, Report
from shoal.engine.proofs import ask_proofs
from shoal.errors import ConfigError, HostError, NotRunning
from shoal.host.base import Host
from shoal.host.local import LocalHost
from shoal.nccl.variables import dotted
from shoal.ops import events
from shoal.ops.bundle_places import key_of
from shoal.ops.doctor import examine
from shoal.ops.fabric import version_of
from shoal.ops.fleet.desk import desk
from shoal.ops.fleet.hosts import open_hosts
from shoal.ops.reach import reach
from shoal.ops.status import reader
from shoal.ops.where import Reach
from shoal.plan.fabric import Fabric, plan_fabric
from shoal.plan.fleet import API_KEY, RAY_TOKEN
from shoal.spec import cluster
from shoal.spec.environ import state_dir
from shoal.spec.redact import of_environment
from shoal.state.journal import Entry
from shoal.state.live import EngineLive, NodeLive
from shoal.state.status import ClusterStatus, judge

PATIENCE = aiohttp.ClientTimeout(total=5.0)
MOST_EVENTS = 300
DAY = 86400.0
D = TypeVar("D", bound=BaseModel)


@dataclass(frozen=True)
class Wish:
    """Whose report: hosts to read, a cluster file, captures to judge, files with what was measured before."""

    hosts: Sequence[Host] = ()
    file: Path | None = None
    captures: Sequence[Path] = ()
    benches: Sequence[Path] = ()
    proof: Path | None = None


@dataclass(frozen=True)
class Running:
    """A cluster that runs: what its agents and its supervisor say. ``silent``: who said nothing, and why.

    ``events`` are None where nobody asked for them.
    """

    nodes: tuple[NodeLive, ...] = ()
    engine: EngineLive | None = None
    proofs: tuple[NodeProof, ...] = ()
    events: tuple[Entry, ...] | None = None
    silent: tuple[str, ...] = ()
    endpoint: str = ""
    name: str = "local"

    @property
    def status(self) -> ClusterStatus:
        """The whole of it."""
        nodes, engine = tuple(one.node for one in self.nodes), self.engine.engine if self.engine else None
        state = judge(nodes, engine)
        return ClusterStatus(cluster=self.name, state=state, endpoint=self.endpoint, nodes=nodes, engine=engine)


@dataclass(frozen=True)
class Contents:
    """All that the page tells. ``secrets`` are values that must not stand in it."""

    made: float
    doctor: Report
    fabric: Fabric | None = None
    nccl: str = ""
    running: Running | None = None
    benches: tuple[tuple[str, Measured], ...] = ()
    proof: Proof | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)


def gather(wish: Wish, env: Mapping[str, str]) -> Contents:
    """Everything at once. A cluster is asked where one runs here and no capture is judged instead.

    Raises:
        ConfigError: a file that was named cannot be read or understood.
        UsageError: a capture is none.
    """
    benches, proof = tuple((path.name, _bench(path)) for path in wish.benches), _proof(wish.proof)
    where = None if wish.captures or wish.file else _where(env)
    hosts = _hosts(wish)
    doctor = examine(hosts, wish.captures, Choice())
    fabric, nccl = _fabric(doctor)
    running = asyncio.run(_ask(where, env)) if where else _far(wish.file, env) if wish.file else None
    return Contents(time.time(), doctor, fabric, nccl, running, benches, proof, _secrets(where, wish.file, env))


def _hosts(wish: Wish) -> Sequence[Host]:
    if wish.file:
        return tuple(open_hosts(cluster.load(wish.file)).values())
    return wish.hosts or (() if wish.captures else (LocalHost(),))


def _far(file: Path, env: Mapping[str, str]) -> Running:
    """A cluster on other machines, as its head tells over ssh: how it stands, without what moves."""
    try:
        told = reader(file, env)()
    except HostError as error:
        return Running(silent=(f"{error.what}: {error.why}",))
    now = time.time()
    nodes = tuple(NodeLive(node=node, at=now) for node in told.nodes)
    engine = EngineLive(engine=told.engine, at=now) if told.engine else None
    return Running(nodes, engine, endpoint=told.endpoint or "", name=told.cluster)


def _where(env: Mapping[str, str]) -> Reach | None:
    try:
        return reach(env)
    except NotRunning:
        return None


def _fabric(doctor: Report) -> tuple[Fabric | None, str]:
    nodes = list(doctor.facts.values())
    if not nodes:
        return None, ""
    version, source = version_of(nodes)
    return plan_fabric(nodes, version), f"NCCL {dotted(version)} ({source})"


def _bench(path: Path) -> Measured:
    return read_document(_text(path, "shoal bench fabric --baseline FILE"), str(path))


def _proof(path: Path | None) -> Proof | None:
    if path is None:
        return None
    try:
        return TypeAdapter(Proof).validate_json(_text(path, "shoal prove --json > FILE"))
    except ValidationError as error:
        what = f"{path} holds no proof: {error.error_count()} fields are wrong"
        raise ConfigError(what, fix=f"shoal prove --json > {path}") from error


def _text(path: Path, fix: str) -> str:
    text = LocalHost().read(str(path))
    if text is None:
        raise ConfigError(f"cannot read {path}", fix=f"make one first: {fix}")
    return text


async def _ask(where: Reach, env: Mapping[str, str]) -> Running:
    """Agents and supervisor, all at once."""
    async with aiohttp.ClientSession(timeout=PATIENCE, trust_env=False, headers=bearer(where.key)) as http:
        urls = [f"http://{_bracketed(address)}:{where.agent_port}/live" for address in where.addresses]
        asked = asyncio.gather(*(_get(http, url, NodeLive) for url in urls))
        told, engine, proofs = await asyncio.gather(
            asked,
            _get(http, f"{where.serve_url}/live", EngineLive),
            ask_proofs(where.addresses, where.agent_port, where.key),
        )
    silent = [words for words in (*told, engine) if isinstance(words, str)]
    return Running(
        tuple(one for one in told if isinstance(one, NodeLive)),
        engine if isinstance(engine, EngineLive) else None,
        tuple(one for one in proofs.values() if isinstance(one, NodeProof)),
        await asyncio.to_thread(_events, env),
        tuple(silent),
        where.endpoint,
    )


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


async def _get(http: aiohttp.ClientSession, url: str, kind: type[D]) -> D | str:
    try:
        async with http.get(url) as reply:
            return kind.model_validate_json(await reply.text())
    except ValidationError:
        return f"{url}: an answer that this version does not understand"
    except (aiohttp.ClientError, TimeoutError) as error:
        return f"{url}: {str(error) or type(error).__name__}"


def _events(env: Mapping[str, str]) -> tuple[Entry, ...]:
    """The last day's, the newest at the end."""
    try:
        return tuple(events.gather(state_dir(dict(env)), env, time.time() - DAY)[-MOST_EVENTS:])
    except NotRunning:
        return ()


def _secrets(where: Reach | None, file: Path | None, env: Mapping[str, str]) -> tuple[str, ...]:
    """Values that are known to be secrets: of the environment, the API's key, Ray's token, and the key it makes."""
    names = [env.get(name, "") for name in ("RAY_AUTH_TOKEN_PATH", "SHOAL_API_KEY_FILE")]
    files = [name for name in (*names, where.api_key_file if where else "") if name]
    texts = (LocalHost().read(name) or "" for name in files)
    known = {*of_environment(env), *(text.strip() for text in texts), (where.key if where else None) or ""}
    return tuple(sorted((known | (_of_file(file, env) if file else set())) - {""}))


def _of_file(file: Path, env: Mapping[str, str]) -> set[str]:
    """The same of a cluster on other machines: what the operator keeps of it, or the file names."""
    spec = cluster.load(file)
    own = desk(spec.cluster, env).folder
    key, token = ((LocalHost().read(str(own / name)) or "").strip() for name in (API_KEY, RAY_TOKEN))
    return {key, token, derive(token) if token else "", *map(str.strip, key_of(spec.serving.api_key, env))}
