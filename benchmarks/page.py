"""The status page with 128 nodes: its weight, first paint and updates, and what 20 viewers cost the head's agent.

    python -m benchmarks.page [--nodes 128] [--viewers 20] [--out benchmarks/results/page.json]

The nodes are made up, in a process of their own: each answers at an address of its own as an agent does, with eight
GPUs and eight HCAs whose numbers move, and sends its heartbeat once a second. The head's agent is the real one without
its Ray: the same application, in its own process, which is measured.
"""

import argparse
import asyncio
import json
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import aiohttp
import psutil
from playwright.sync_api import sync_playwright
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shoal.agent.app import agent_app
from shoal.agent.endpoint import Endpoint, bind
from shoal.agent.page.routes import Page
from shoal.agent.talk import Board, talk_routes
from shoal.host.local import LocalHost
from shoal.spec.env import agent_settings
from shoal.state.live import EngineLive, GpuLive, HcaLive, NodeLive, ServingLive
from shoal.state.status import EngineState, EngineStatus, NodeState, NodeStatus

PORT, SERVE_PORT, CHROMIUM = 18746, 18747, "/usr/bin/chromium"
HEAD, KEY = "127.0.0.1", "benchmark-key"
WARM_UP, WATCHED = 5.0, 20.0


def address(number: int) -> str:
    """The address of a node: the head is number 1."""
    return f"127.0.{number // 250}.{number % 250}"


def status(number: int) -> NodeStatus:
    """A node that is up."""
    role: Literal["head", "worker"] = "head" if number == 1 else "worker"
    return NodeStatus(name=f"n{number}", role=role, address=address(number), state=NodeState.UP, stage="UP", gpus=8)


def reading(number: int, now: float) -> NodeLive:
    """What its agent reads: nothing in it stands still."""
    dice = random.Random(f"{number} {int(now)}")
    gpus = tuple(
        GpuLive(
            index=index,
            name="NVIDIA H100 80GB HBM3",
            uuid=f"GPU-{number:04}-{index}",
            utilisation=round(dice.uniform(0.8, 1.0), 2),
            memory_used_bytes=int(70e9 + dice.uniform(0, 1e9)),
            memory_total_bytes=85_899_345_920,
            temperature_celsius=dice.randint(52, 68),
            power_watts=round(dice.uniform(480, 690), 1),
        )
        for index in range(8)
    )
    moved = int(now * 20e9)
    hcas = tuple(
        HcaLive(
            device=f"mlx5_{index}",
            port=1,
            netdev=f"ib{index}",
            link_layer="InfiniBand",
            state="ACTIVE",
            rate_gbps=400,
            received_bytes_total=moved + dice.randint(0, 10**9),
            sent_bytes_total=moved + dice.randint(0, 10**9),
            errors=dict.fromkeys(("symbol_error", "link_downed", "port_rcv_errors", "local_ack_timeout_err"), 0),
        )
        for index in range(8)
    )
    return NodeLive(node=status(number), at=now, gpus=gpus, hcas=hcas)


def made_up() -> Starlette:
    """All workers and the supervisor; who is asked follows from the address."""

    async def live(request: Request) -> Response:
        if request.url.port == SERVE_PORT:
            now = time.time()
            serving = ServingLive(
                tokens_per_s=round(9000 + 500 * random.random(), 1),
                prompt_tokens_per_s=31000,
                ttft_p50_s=0.21,
                ttft_p95_s=0.64,
                itl_p50_s=0.018,
                itl_p95_s=0.041,
                kv_cache_use=0.63,
                requests_running=212,
                requests_waiting=3,
            )
            engine = EngineStatus(state=EngineState.READY, model="made-up", phases={"gate": 2, "weights": 90})
            return Response(EngineLive(engine=engine, at=now, serving=serving).model_dump_json())
        parts = [int(part) for part in (request.url.hostname or "").split(".")]
        return Response(reading(parts[2] * 250 + parts[3], time.time()).model_dump_json())

    async def events(_: Request) -> Response:
        return JSONResponse([])

    return Starlette(routes=[Route("/live", live), Route("/events", events)])


async def nodes(count: int) -> None:
    """The made-up nodes: they answer, and beat."""
    sockets = [bind(address(number), PORT) for number in range(2, count + 1)]
    Endpoint(made_up(), [*sockets, bind(HEAD, SERVE_PORT)]).start()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        await asyncio.gather(*(beat(http, number) for number in range(2, count + 1)))


async def beat(http: aiohttp.ClientSession, number: int) -> None:
    """A node's heartbeats, once a second; not all nodes at the same moment."""
    body = status(number).model_dump_json()
    await asyncio.sleep(random.random())
    while True:
        try:
            async with http.post(f"http://{HEAD}:{PORT}/beat", data=body) as reply:
                await reply.read()
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(1.0)


async def head(folder: Path) -> None:
    """The head's agent, but for its Ray."""
    key = folder / "api.key"
    key.write_text(KEY)
    env = {"RAY_MODE": "head", "VLLM_HOST_IP": HEAD, "SHOAL_AGENT_PORT": str(PORT), "SHOAL_SERVE_PORT": str(SERVE_PORT)}
    settings = agent_settings({**env, "SHOAL_API_KEY_FILE": str(key), "SHOAL_STATE_DIR": str(folder)})
    board = Board(settings.lost_after)

    async def live() -> NodeLive:
        return reading(1, time.time())

    async def told(_: Request) -> Response:
        return Response((await live()).model_dump_json(), media_type="application/json")

    page = Page(LocalHost(), settings, lambda: status(1), board, lambda: None)
    talk = talk_routes(lambda: status(1), board, lambda: None, folder / "journal.jsonl")
    app = agent_app(lambda: status(1), (*talk, Route("/live", told), *page.routes()), live)
    Endpoint(app, [bind(HEAD, PORT)]).start()
    await asyncio.sleep(3600)


async def view(url: str, cookies: dict[str, str], seconds: float, sizes: dict[str, list[int]]) -> None:
    """One viewer that is no browser: it reads the stream."""
    async with aiohttp.ClientSession(cookies=cookies) as http, http.get(f"{url}/api/stream") as reply:
        end = time.monotonic() + seconds
        rest = b""
        async for part in reply.content.iter_any():
            *frames, rest = (rest + part).split(b"\n\n")
            for one in frames:
                kind = one.partition(b"\n")[0].decode().removeprefix("event: ")
                sizes.setdefault(kind, []).append(len(one))
            if time.monotonic() > end:
                return


async def login(url: str) -> dict[str, str]:
    """The cookie of a session."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        await http.post(f"{url}/login", data={"key": KEY}, headers={"origin": url}, allow_redirects=False)
        return {cookie.key: cookie.value for cookie in http.cookie_jar}


def watched(process: psutil.Process, url: str, viewers: int) -> dict[str, Any]:
    """What so many viewers cost the agent."""
    sizes: dict[str, list[int]] = {"whole": [], "patch": []}

    async def all_of_them() -> tuple[float, float]:
        cookies = await login(url)
        tasks = [asyncio.create_task(view(url, cookies, WARM_UP + WATCHED, sizes)) for _ in range(viewers)]
        await asyncio.sleep(WARM_UP)
        before, began = process.cpu_times(), time.monotonic()
        await asyncio.sleep(WATCHED)
        after, took = process.cpu_times(), time.monotonic() - began
        for task in tasks:
            task.cancel()
        used = after.user + after.system - before.user - before.system
        return used / took, took

    share, _ = asyncio.run(all_of_them())
    return {
        "viewers": viewers,
        "cpu_percent_of_one_core": round(100 * share, 1),
        "memory_mb": round(process.memory_info().rss / 1e6, 1),
        "first_document_kb": _kb(sizes["whole"]),
        "update_kb": _kb(sizes["patch"]),
    }


def _kb(sizes: list[int]) -> float | None:
    return round(statistics.median(sizes) / 1e3, 1) if sizes else None


PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
WEIGHT = "performance.getEntries().reduce((sum, one) => sum + (one.transferSize ?? 0), 0)"
# From the arrival of a message to the end of the frame that shows it.
UPDATE = """() => new Promise((done) => {
  const took = [];
  const stream = new EventSource('/api/stream');
  const shown = (began) => {
    took.push(performance.now() - began);
    if (took.length < 5) return;
    stream.close();
    done(took);
  };
  stream.addEventListener('patch', () => {
    const began = performance.now();
    requestAnimationFrame(() => setTimeout(() => shown(began), 0));
  });
})"""


def browsed(url: str, count: int, shots: Path | None) -> dict[str, Any]:
    """First paint, weight, and an update, in headless Chromium."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(f"{url}/login")
        page.fill("#key", KEY)
        page.click("button")
        page.wait_for_selector(".verdict[data-health=good]", timeout=30000)
        weight = page.evaluate(WEIGHT)
        paints, pictures = [], []
        for _ in range(5):
            page.reload(wait_until="commit")
            page.wait_for_selector(f".many li:nth-child({count}) button", timeout=30000)
            pictures.append(page.evaluate("performance.now()"))
            paints.append(page.evaluate(PAINT))
        updates = page.evaluate(UPDATE)
        if shots:
            page.screenshot(path=str(shots), full_page=True)
        browser.close()
    return {
        "files_kb": round(weight / 1e3, 1),
        "first_paint_ms": round(statistics.median(paints)),
        "all_nodes_drawn_ms": round(statistics.median(pictures)),
        "update_to_frame_ms": round(statistics.median(updates)),
    }


def wait_for(url: str, seconds: float = 30.0) -> None:
    """Until the head's agent answers."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            asyncio.run(login(url))
        except aiohttp.ClientError:
            time.sleep(0.2)
        else:
            return
    raise RuntimeError(f"{url} does not answer")


def measure(count: int, viewers: int, shots: Path | None) -> dict[str, Any]:
    """Everything."""
    url = f"http://{HEAD}:{PORT}"
    with tempfile.TemporaryDirectory() as folder:
        program = (sys.executable, "-m", "benchmarks.page")
        parts = [
            subprocess.Popen((*program, "--as-head", folder)),
            subprocess.Popen((*program, "--as-nodes", str(count))),
        ]
        try:
            wait_for(url)
            time.sleep(WARM_UP)
            process = psutil.Process(parts[0].pid)
            rows = [watched(process, url, number) for number in (0, 1, viewers)]
            return {"nodes": count, **browsed(url, count, shots), "agent": rows}
        finally:
            for part in parts:
                part.terminate()
                part.wait(10)


def main() -> None:
    """The command line."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--nodes", type=int, default=128)
    words.add_argument("--viewers", type=int, default=20)
    words.add_argument("--out", type=Path)
    words.add_argument("--shot", type=Path, help="write a picture of the page there")
    words.add_argument("--as-head", type=Path, help=argparse.SUPPRESS)
    words.add_argument("--as-nodes", type=int, help=argparse.SUPPRESS)
    asked = words.parse_args()
    if asked.as_head:
        asyncio.run(head(asked.as_head))
    elif asked.as_nodes:
        asyncio.run(nodes(asked.as_nodes))
    else:
        found = {"machine": platform.platform(), **measure(asked.nodes, asked.viewers, asked.shot)}
        print(json.dumps(found, indent=2))
        if asked.out:
            asked.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
