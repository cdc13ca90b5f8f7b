"""A head's agent without its Ray, among nodes that are made up: all that a page must show, and nothing to wait for.

``python -m tests.web.made_up FOLDER PORT NODES`` runs it until it is ended. A worker calls itself by a script, a port
is down, an error counter grows, a check has failed; the engine answers every question with markup, word by word.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from shoal.agent.app import agent_app
from shoal.agent.endpoint import Endpoint, bind
from shoal.agent.page.routes import Page
from shoal.agent.talk import Board
from shoal.host.local import LocalHost
from shoal.spec.env import agent_settings
from shoal.state.journal import Entry
from shoal.state.live import EngineLive, FindingLive, GpuLive, HcaLive, NodeLive, ServingLive
from shoal.state.status import EngineState, EngineStatus, NodeState, NodeStatus

KEY = "made-up-key"
HEAD = "127.0.0.1"
EVIL = '<script>window.hit=1</script><img src=x onerror="window.hit=1"> javascript:window.hit=1'


def status(number: int) -> NodeStatus:
    """A node; the third calls itself by a script, the fifth is on its way."""
    name = f"n{number}" if number != 3 else f"n3 {EVIL}"
    state = NodeState.JOINING if number == 5 else NodeState.UP
    role = "head" if number == 1 else "worker"
    return NodeStatus.model_validate(
        {"name": name, "role": role, "address": f"127.0.0.{number}", "state": state, "detail": "", "gpus": 2}
    )


def reading(number: int) -> NodeLive:
    """What its agent reads: the second port of the second node is down, and the third's errors grow."""
    now = time.time()
    gpus = tuple(
        GpuLive(
            index=index,
            name="H100",
            utilisation=0.5,
            memory_used_bytes=40 << 30,
            memory_total_bytes=80 << 30,
            temperature_celsius=60,
            power_watts=500,
        )
        for index in range(2)
    )
    hcas = tuple(
        HcaLive(
            device=f"mlx5_{index}",
            port=1,
            netdev=f"eth{index}",
            state="DOWN" if (number, index) == (2, 1) else "ACTIVE",
            rate_gbps=100,
            received_bytes_total=int(now * 5e9),
            sent_bytes_total=int(now * 2.5e9),
            errors={"out_of_sequence": int(now) if number == 3 else 0},
        )
        for index in range(2)
    )
    found = FindingLive(id="rdma.mtu", status="FAIL", title=EVIL, evidence=EVIL, fix="ip link set eth0 mtu 9000")
    return NodeLive(node=status(number), at=now, gpus=gpus, hcas=hcas, findings=(found,) if number == 2 else ())


async def live(request: Request) -> Response:
    """Whose reading it is follows from the address."""
    number = int((request.url.hostname or "").rpartition(".")[2])
    return Response(reading(number).model_dump_json())


async def events(_: Request) -> Response:
    """A journal that somebody has written markup into."""
    return JSONResponse([json.loads(Entry(1.7e9, f"n3 {EVIL}", EVIL, EVIL, "error").line())])


async def chat(request: Request) -> Response:
    """The answer, word by word."""
    if request.headers.get("authorization") != f"Bearer {KEY}":
        return Response("no key", 401)

    async def words() -> AsyncIterator[str]:
        for word in ("Hello ", "there: ", EVIL):
            yield f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'content': word}}]})}\n\n"
            await asyncio.sleep(0.4)
        yield f"data: {json.dumps({'choices': [], 'usage': {'completion_tokens': 3}})}\n\ndata: [DONE]\n\n"

    return StreamingResponse(words(), media_type="text/event-stream")


def engine(port: int) -> Starlette:
    """Supervisor and engine."""

    async def told(_: Request) -> Response:
        status = EngineStatus(state=EngineState.READY, model="made-up", phases={"gate": 2, "weights": 90})
        serving = ServingLive(tokens_per_s=120, ttft_p50_s=0.2, ttft_p95_s=1.4, itl_p50_s=0.02, requests_running=3)
        endpoint = f"http://{HEAD}:{port}/v1"
        return Response(EngineLive(engine=status, at=1.0, serving=serving, endpoint=endpoint).model_dump_json())

    return Starlette(routes=[Route("/live", told), Route("/v1/chat/completions", chat, methods=["POST"])])


async def main(folder: Path, port: int, count: int) -> None:
    """All of it in one process."""
    (folder / "api.key").write_text(KEY, encoding="utf-8")
    env = {"RAY_MODE": "head", "VLLM_HOST_IP": HEAD, "SHOAL_STATE_DIR": str(folder), "SHOAL_AGENT_PORT": str(port)}
    env |= {"SHOAL_SERVE_PORT": str(port + 1), "SHOAL_API_KEY_FILE": str(folder / "api.key")}
    board = Board(30.0)
    page = Page(LocalHost(), agent_settings(env), lambda: status(1), board, lambda: None)
    app = agent_app(lambda: status(1), (Route("/live", live), *page.routes()))
    Endpoint(app, [bind(HEAD, port)]).start()
    Endpoint(engine(port + 1), [bind(HEAD, port + 1)]).start()
    workers = Starlette(routes=[Route("/live", live), Route("/events", events)])
    Endpoint(workers, [bind(status(number).address, port) for number in range(2, count + 1)]).start()
    while True:
        for number in range(2, count + 1):
            board.hear(status(number))
        await asyncio.sleep(0.5)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
