"""Random faults under load: does everything come back by itself, is every answer right, is ready never a lie?"""

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from shoal.errors import ShoalError
from shoal.lab import cluster, faults, processes
from shoal.lab.cluster import Lab
from shoal.lab.faults import FAULTS, Fault, Target
from shoal.lab.load import Load
from shoal.ops.ask import api_key
from shoal.state.status import EngineState, EngineStatus

RECOVERS_WITHIN = 180.0
SHORTEST, LONGEST = 2.0, 15.0  # seconds that a lasting fault lasts
QUIET = 3.0
SAMPLE_EVERY = 1.0
PROBE_LIMIT = 6.0
GROWN_UP = 20.0  # seconds of life after which a process has loaded what it needs
EVERYWHERE = ("agent", "raylet", "rank")
HEADS = ("gcs", "engine", "api", "supervisor")


@dataclass(frozen=True)
class Struck:
    """One fault of the soak, and how long it took until a token came again."""

    at: float
    words: str
    lasted: float
    recovered: float | None


@dataclass
class Watched:
    """Memory and file handles of one process, when it had loaded all and last."""

    name: str
    first: tuple[int, int]
    last: tuple[int, int]
    seconds: float


@dataclass
class Report:
    """What the soak found. Empty ``lies`` and ``lost`` and a tally without wrong or hung ones is what it should be."""

    seed: int
    seconds: float = 0.0
    struck: list[Struck] = field(default_factory=list)
    lies: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    requests: dict[str, Any] = field(default_factory=dict)
    processes: list[Watched] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether all went as it should."""
        return not (self.lies or self.lost or self.requests["wrong"] or self.requests["hung"])

    def to_json(self) -> str:
        """The report as a document."""
        return json.dumps({**asdict(self), "good": self.good}, indent=1) + "\n"


def choices(lab: Lab) -> list[tuple[Fault, Target]]:
    """Every fault that this lab can have, with every role and host that it can strike."""
    out = []
    for fault in FAULTS.values():
        if fault.name == "delay" or (fault.needs_namespace and lab.record.kind != "namespace"):
            continue  # a delay needs netem, and is refused where there is none
        if fault.name == "clock-jump" and not lab.record.clock:
            continue
        out += [(fault, target) for target in targets(lab, fault)]
    return out


def targets(lab: Lab, fault: Fault) -> Iterator[Target]:
    """What a fault can strike in this lab."""
    head = lab.host("head")
    if fault.strikes == "head":
        yield Target(head)
    elif fault.strikes == "host":
        yield from (Target(host) for host in lab.record.hosts if fault.name != "reboot" or host.role == "worker")
    else:
        yield from (Target(host, role) for host in lab.record.hosts for role in EVERYWHERE)
        yield from (Target(head, role) for role in HEADS)


class Witness:
    """Asks again and again whether the engine is ready, and whether that is true."""

    def __init__(self, url: str, load: Load) -> None:
        self._url = url
        self._load = load
        self._unproven = 0
        self.lies: list[str] = []

    async def look(self) -> None:
        """Ask once. Between question and token an engine may die; twice in a row is no coincidence."""
        (state, detail), token = await asyncio.gather(_engine(self._url), _within(self._load.one(), PROBE_LIMIT))
        self._unproven = self._unproven + 1 if state is EngineState.READY and not token else 0
        if self._unproven == 2:
            self.lies.append(f"said ready ({detail}) while no token came, at {time.strftime('%H:%M:%S')}")

    async def watch(self) -> None:
        """Ask until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(SAMPLE_EVERY)

    async def settled(self, seconds: float) -> float | None:
        """From when on requests were answered and the supervisor said ready, for a while; None where that did not come.

        For a moment all may look well before a fault shows.
        """
        end = time.monotonic() + seconds
        since: float | None = None
        while time.monotonic() < end:
            asked = time.monotonic()
            state, _ = await _engine(self._url)
            well = state is EngineState.READY and await self._load.one()
            since = (since or asked) if well else None
            if since is not None and time.monotonic() - since > QUIET:
                return since
            await asyncio.sleep(0.2)
        return None


class Soak:
    """One run."""

    def __init__(self, env: Mapping[str, str], seed: int, say: Callable[[str], None]) -> None:
        self._env = env
        self._random = random.Random(seed)  # noqa: S311 (the same seed gives the same faults; no secret)
        self._say = say
        self._report = Report(seed)
        self._first: dict[tuple[int, float], tuple[int, int]] = {}
        self._last: dict[tuple[int, float], Watched] = {}

    async def run(self, seconds: float) -> Report:
        """Strike at random for that long, with a client at work."""
        run = cluster.current(self._env).record.run
        began = time.monotonic()
        async with Load(run.endpoint, api_key(run), run.model) as load:
            witness = Witness(run.serve_url, load)
            tasks = [asyncio.create_task(witness.watch()), asyncio.create_task(self._watch())]
            try:
                while time.monotonic() - began < seconds:
                    await asyncio.sleep(self._random.uniform(1.0, QUIET))
                    if not await self._strike_one(began, witness):
                        break
            finally:
                for task in tasks:
                    task.cancel()
        self._report.seconds = round(time.monotonic() - began, 1)
        self._report.lies = witness.lies
        self._report.requests = load.tally.as_dict()
        self._report.processes = list(self._last.values())
        return self._report

    async def _strike_one(self, began: float, witness: Witness) -> bool:
        lab = cluster.current(self._env)
        fault, target = self._random.choice(choices(lab))
        lasts = round(self._random.uniform(SHORTEST, LONGEST), 1) if fault.lasts else 0.0
        try:
            lab, words = await asyncio.to_thread(faults.strike, lab, fault, target)
        except ShoalError as error:
            self._say(f"passed over: {error.what}")
            return True
        await asyncio.sleep(lasts)
        if fault.lasts:
            lab = (await asyncio.to_thread(faults.undo, lab, faults.lasting(lab, fault, target)))[0]
        over = time.monotonic()
        recovered = await witness.settled(RECOVERS_WITHIN)
        taken = None if recovered is None else round(recovered - over, 1)
        self._report.struck.append(Struck(round(over - began, 1), words, lasts, taken))
        if taken is None:
            self._report.lost.append(f"{words}: not ready within {RECOVERS_WITHIN:g} s")
        self._say(
            f"{over - began:6.0f} s  {words}" + (f" for {lasts:g} s" if lasts else "") + f": ready after {taken} s"
        )
        return taken is not None

    async def _watch(self) -> None:
        while True:
            await asyncio.to_thread(self._sample)
            await asyncio.sleep(SAMPLE_EVERY)

    def _sample(self) -> None:
        lab = cluster.current(self._env)
        for host in lab.record.hosts:
            for role in ("agent", "supervisor"):
                for process in processes.find(host, lab.record.run.boot_id, role):
                    self._look(f"{role}@{host.name}", process)

    def _look(self, name: str, process: psutil.Process) -> None:
        try:
            key, age = (process.pid, process.create_time()), time.time() - process.create_time()
            seen = process.memory_info().rss, process.num_fds()
        except psutil.Error:
            return
        if age > GROWN_UP:
            first = self._first.setdefault(key, seen)
            self._last[key] = Watched(name, first, seen, round(age))


async def _within(question: Any, seconds: float) -> bool:
    try:
        return bool(await asyncio.wait_for(question, seconds))
    except TimeoutError:
        return False


async def _engine(url: str) -> tuple[EngineState, str]:
    """What the supervisor says of the engine."""
    limit = aiohttp.ClientTimeout(total=PROBE_LIMIT)
    try:
        async with aiohttp.ClientSession(timeout=limit, trust_env=False) as http, http.get(f"{url}/status") as reply:
            status = EngineStatus.model_validate_json(await reply.text())
            return status.state, status.detail
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        return EngineState.UNREADY, type(error).__name__


def soak(env: Mapping[str, str], minutes: float, seed: int, say: Callable[[str], None]) -> Report:
    """Strike the lab at random; the report is also written beside its logs."""
    report = asyncio.run(Soak(env, seed, say).run(minutes * 60))
    Path(cluster.lab_dir(env), "soak.json").write_text(report.to_json(), encoding="utf-8")
    return report
