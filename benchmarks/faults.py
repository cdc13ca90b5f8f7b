"""What happens after each fault, side by side: shoal, the shell loop of hand-written compose files, plain Ray.

    python -m benchmarks.faults --engine sim [--sides shoal,loop,plain] [--out benchmarks/results/faults.json]

All three run on the same namespace hosts (root), with the same Ray, the same engine and the same first process, which
starts a service again as Docker's ``restart: unless-stopped`` does:

*shoal*   the agent on each host, the supervisor on the head.
*loop*    what hand-written compose files do: ``sleep 15; ray start ...; tail -f /dev/null``, and the server beside it.
*plain*   ``ray start --block``, and the server, both started again whenever they end.

A client asks for an answer five times a second, and gives each request two seconds. *shown*: seconds until somebody who
looks is told (shoal's status; else ``/health``). *back*: seconds from the fault, or from its end where it lasts, until
answers come and go on coming. *ray*: until every host's raylet answers again and goes on answering, Ray's own start
included; 0 where none was hurt. *beyond*: back, less ray, less the time that the engine itself needs to start: what is
spent on noticing that the node is back, on verifying it, on the gate and on the launch.
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp

from shoal.agent.ray_command import start_argv
from shoal.facts.grpc_health import serving
from shoal.facts.versions import versions
from shoal.host.local import LocalHost
from shoal.lab import cluster, faults, namespace, processes
from shoal.lab.cluster import Lab
from shoal.lab.init import Service, read_services, write_services
from shoal.lab.load import Load
from shoal.lab.plan import SIM_SERVER, Wish
from shoal.ops.ask import api_key
from shoal.plan.ports import node_ports
from shoal.spec.env import agent_settings
from shoal.spec.environ import environ
from shoal.state.status import EngineState, EngineStatus

SIDES = ("shoal", "loop", "plain")
# Fault, what it strikes, and for how many seconds where it lasts.
ROWS = (
    ("kill", "raylet@n2", 0.0),
    ("kill", "agent@n2", 0.0),
    ("kill", "rank@n2", 0.0),
    ("kill", "engine", 0.0),
    ("kill", "api", 0.0),
    ("kill", "gcs", 0.0),
    ("stop", "rank@n2", 10.0),
    ("link-down", "n2", 10.0),
    ("reboot", "n2", 0.0),
    ("head-reboot", "head", 0.0),
)
# Rows share a lab; each is to be measured as if it were the first fault for long.
PATIENT = {"SHOAL_RESTART_WINDOW": "5"}
LIMIT = 90.0  # seconds after which a row counts as not recovered
SETTLED = 3.0
UNHURT = 75.0
PATIENCE = 2.0
FIRST = 150.0


@dataclass(frozen=True)
class Row:
    """One fault on one side."""

    side: str
    fault: str
    target: str
    shown: float | None
    back: float | None
    ray: float
    beyond: float | None
    failed: int
    restarted: bool


def rival_services(lab: Lab, side: str) -> None:
    """Replace what the hosts run by what a hand-written deployment runs."""
    for host in lab.record.hosts:
        path = Path(host.folder) / "services.json"
        agent, *rest = read_services(path.read_text())
        env = dict(agent.env)
        block = start_argv(sys.executable, agent_settings(env), 1)
        started = [word for word in block if word != "--block"]
        wait = "sleep 15; " if host.role == "worker" else ""
        loop = ("bash", "-c", f"{wait}{' '.join(started)}; tail -f /dev/null")
        own = [Service("ray", (*namespace.CONTAINER, *(loop if side == "loop" else block)), env, agent.log)]
        for serve in rest:
            request = json.loads(Path(serve.env["SHOAL_ENGINE_PLAN"]).read_text())
            argv = (sys.executable, "-m", SIM_SERVER, *request["arguments"])
            own.append(Service("server", argv, {**serve.env, **request["env"]}, serve.log))
        LocalHost().write(str(path), write_services(tuple(own)), mode=0o600)


def bring_up(side: str, env: Mapping[str, str], subnet: str) -> Lab:
    """A lab of two hosts that runs that side."""
    lab = cluster.up(Wish(2, "namespace", "sim", subnet=subnet, settings=PATIENT), env, lambda _: None)
    if side != "shoal":
        for host in lab.record.hosts:
            lab = cluster.power_off(lab, host)
        rival_services(lab, side)
        for host in lab.record.hosts:
            lab = cluster.boot(lab, host)
    return lab


class Watch:
    """Who asks and who looks, while a fault is at work."""

    def __init__(self, side: str, lab: Lab) -> None:
        self._side = side
        self._run = lab.record.run
        self._raylets = raylets(lab)
        self.ends: list[tuple[float, bool]] = []
        self.bad_since: float | None = None
        self.no_ray: list[float] = []
        self.load_seconds = 0.0

    def ended(self, began: float, right: bool) -> None:
        """A request that began then has ended."""
        self.ends.append((began, right))

    def back(self, since: float) -> float | None:
        """From when on, after ``since``, all requests were answered, for some seconds; None where that is not so."""
        after = sorted((began, right) for began, right in self.ends if began >= since - PATIENCE)
        wrong = [began for began, right in after if not right]
        good = [began for began, right in after if right and began > max(wrong, default=since)]
        if not good or good[-1] - good[0] < SETTLED:
            return None
        return max(good[0], since) if wrong else since

    def ray_back(self, since: float, until: float) -> float:
        """Seconds from ``since`` to the last silence of a raylet before ``until``; 0 without one."""
        return max((at - since for at in self.no_ray if since <= at <= until), default=0.0)

    async def look_at_ray(self) -> None:
        """Ask every host's raylet five times a second."""
        while True:
            if not all(await asyncio.gather(*(answers_at(*raylet) for raylet in self._raylets))):
                self.no_ray.append(time.monotonic())
            await asyncio.sleep(0.2)

    async def look(self) -> None:
        """Ask five times a second whether all is well, as somebody who looks would."""
        limit = aiohttp.ClientTimeout(total=PATIENCE + 3)
        async with aiohttp.ClientSession(timeout=limit, trust_env=False) as http:
            while True:
                asked = time.monotonic()
                if not await self._well(http) and self.bad_since is None:
                    self.bad_since = max(asked, time.monotonic() - 0.2)
                await asyncio.sleep(0.2)

    async def _well(self, http: aiohttp.ClientSession) -> bool:
        ours = self._side == "shoal"
        url = f"{self._run.serve_url}/status" if ours else f"{self._run.endpoint.removesuffix('/v1')}/health"
        try:
            async with http.get(url) as reply:
                if not ours:
                    return reply.status == 200
                status = EngineStatus.model_validate_json(await reply.text())
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return False
        took = {name: seconds for name, seconds in status.phases.items() if name != "gate"}
        self.load_seconds = sum(took.values()) if status.state is EngineState.READY else self.load_seconds
        return status.state is EngineState.READY


def strike(lab: Lab, name: str, word: str) -> tuple[Lab, faults.Fault, faults.Target]:
    """Let the fault happen. The agent's place is taken, on the rivals' side, by whatever their container runs."""
    fault = faults.FAULTS[name]
    target = faults.read_target(lab, fault, word)
    if target.role == "agent":
        namespace.container(target.host, lab.record.run.boot_id).kill()
        return lab, fault, target
    return faults.strike(lab, fault, target)[0], fault, target


async def measure(side: str, lab: Lab, name: str, word: str, lasts: float) -> tuple[Lab, Row, float]:
    """One row: the fault, what was seen, and the seconds that the engine needed to start where it did."""
    run, watch = lab.record.run, Watch(side, lab)
    before = apis(lab)
    async with Load(run.endpoint, api_key(run), run.model, per_second=5, limit=PATIENCE, on_end=watch.ended) as load:
        looking = [asyncio.create_task(one) for one in (watch.look(), watch.look_at_ray())]
        await asyncio.sleep(2.0)
        watch.bad_since = None
        failed, struck = load.tally.failed + load.tally.timed_out, time.monotonic()
        lab, fault, target = await asyncio.to_thread(strike, lab, name, word)
        await asyncio.sleep(lasts)
        if fault.lasts:
            lab = (await asyncio.to_thread(faults.undo, lab, faults.lasting(lab, fault, target)))[0]
        over = time.monotonic()
        back = await recovered(watch, over)
        for one in looking:
            one.cancel()
        await asyncio.wait(looking)
        failed = load.tally.failed + load.tally.timed_out - failed
    shown = None if watch.bad_since is None else round(watch.bad_since - struck, 1)
    taken = None if back is None else round(back - over, 1)
    restarted = apis(lab) != before
    ray = 0.0 if back is None else round(watch.ray_back(over, back), 1)
    row = Row(side, name, word, shown, taken, ray, None, failed, restarted)
    return lab, row, watch.load_seconds if restarted else 0.0


async def answers_at(address: str, ports: tuple[int, ...]) -> bool:
    """Whether a raylet answers at one of these ports, which it takes in turn."""
    return any(await asyncio.gather(*(serving(address, port, timeout=1.0) for port in ports)))


def raylets(lab: Lab) -> list[tuple[str, tuple[int, ...]]]:
    """Address of every host's raylet, and the ports that it may have."""
    found = []
    for host in lab.record.hosts:
        env = dict(read_services((Path(host.folder) / "services.json").read_text())[0].env)
        found.append((host.address, node_ports(agent_settings(env).port_base).node_managers))
    return found


async def recovered(watch: Watch, over: float) -> float | None:
    """The moment from which on answers came again; None where that is not within the limit.

    What seems to have hurt nobody is watched for longer: without a GCS all goes on for a minute, and then ends.
    """
    while time.monotonic() < over + LIMIT:
        await asyncio.sleep(0.2)
        unhurt = all(right for _, right in watch.ends)
        looked = time.monotonic() > over + (UNHURT if unhurt else 2 * SETTLED)
        if looked and (back := watch.back(over)) is not None:
            return back
    return None


def apis(lab: Lab) -> set[int]:
    """The API servers that run."""
    return {process.pid for process in processes.find(lab.host("head"), lab.record.run.boot_id, "api")}


def answering(lab: Lab, seconds: float) -> bool:
    """Whether a request is answered within so many seconds."""
    run = lab.record.run

    async def ask() -> bool:
        end = time.monotonic() + seconds
        async with Load(run.endpoint, api_key(run), run.model, per_second=0.1, limit=PATIENCE) as load:
            while time.monotonic() < end:
                if await load.one():
                    return True
                await asyncio.sleep(0.5)
        return False

    return asyncio.run(ask())


def one_side(
    side: str, only: str, env: Mapping[str, str], subnet: str, say: Callable[[str], None]
) -> tuple[list[Row], list[float]]:
    """Every row on one side; a side that does not recover gets a new lab for the next row."""
    rows: list[Row] = []
    loads: list[float] = []
    lab: Lab | None = None
    try:
        for name, word, lasts in ROWS:
            if only not in f"{name} {word}":
                continue
            if lab is None:
                lab = bring_up(side, env, subnet)
                if not answering(lab, FIRST):
                    raise RuntimeError(f"{side}: no answer within {FIRST:g} s")
            lab, row, load = asyncio.run(measure(side, lab, name, word, lasts))
            rows.append(row)
            loads += [load] if load else []
            say(f"{side:<6} {name:<11} {word:<10} shown {row.shown} s, back {row.back} s, failed {row.failed}")
            if row.back is None:
                cluster.down(env)
                lab = None
    finally:
        cluster.down(env)
    return rows, loads


def beyond(row: Row, load: float) -> Row:
    """The row less Ray's and the engine's own start, where they were started."""
    taken = None if row.back is None else row.back - row.ray - (load if row.restarted else 0.0)
    return replace(row, beyond=None if taken is None else round(max(0.0, taken), 1))


def page(rows: list[Row], sides: list[str]) -> str:
    """The matrix: a line for each fault, the sides beside each other."""
    cells = {(row.fault, row.target, row.side): row for row in rows}
    lines = [
        "| fault | " + " | ".join(f"{side}: shown, back (ray, beyond), failed" for side in sides) + " |",
        "| --- |" + " --- |" * len(sides),
    ]
    for name, word, lasts in ROWS:
        words = [_cell(cells.get((name, word, side))) for side in sides]
        lines.append(f"| {name} {word}{f' {lasts:g} s' if lasts else ''} | " + " | ".join(words) + " |")
    return "\n".join(lines)


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    shown = "never" if row.shown is None else f"{row.shown:g} s"
    back = f"not within {LIMIT:g} s" if row.back is None else f"{row.back:g} s ({row.ray:g}, {row.beyond:g})"
    return f"{shown}, {back}, {row.failed}"


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="faults on shoal and its rivals, side by side")
    parser.add_argument("--engine", choices=("sim",), default="sim")
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--rows", default="", help="only rows with this word, such as `raylet` or `reboot`")
    parser.add_argument("--subnet", default="192.168.115")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/faults.json"))
    words = parser.parse_args()
    state = Path(tempfile.mkdtemp(prefix="faults-"))
    env = {**environ(), "SHOAL_STATE_DIR": str(state)}
    sides = [side for side in SIDES if side in words.sides.split(",")]
    rows: list[Row] = []
    loads: list[float] = []
    try:
        for side in sides:
            found, took = one_side(side, words.rows, env, words.subnet, lambda text: print(text, flush=True))
            rows += found
            loads += took
    finally:
        shutil.rmtree(state, ignore_errors=True)
    load = statistics.median(loads) if loads else 0.0
    rows = [beyond(row, load) for row in rows]
    result: dict[str, Any] = {
        "command": f"python -m benchmarks.faults --engine {words.engine} --sides {words.sides}",
        "machine": {"cores": len(os.sched_getaffinity(0)), "load_average": os.getloadavg()},
        "versions": versions().model_dump(),
        "engine_load_s": round(load, 1),
        "limit_s": LIMIT,
        "rows": [asdict(row) for row in rows],
    }
    words.out.parent.mkdir(parents=True, exist_ok=True)
    words.out.write_text(json.dumps(result, indent=2) + "\n")
    print(page(rows, sides))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
