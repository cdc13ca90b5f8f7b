"""The simulated engine's API server: ``python -m shoal.lab.sim.server``, with vLLM's arguments.

It takes vLLM's place under the supervisor. Its exit code is 0 when its engine has died, as vLLM's is.
"""

import argparse
import asyncio
import importlib
import json
import logging
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from shoal.lab.sim import answers
from shoal.lab.sim.client import Engine, EngineDead
from shoal.lab.sim.core import Sizes
from shoal.lab.sim.metrics import Metrics

DYING = 0.3  # seconds for which vLLM answers 503 before it ends
log = logging.getLogger("simulated")


def parser() -> argparse.ArgumentParser:
    """vLLM's arguments, as far as shoal gives them, and the simulation's own."""
    known = argparse.ArgumentParser(prog="simulated-engine", description="A simulated vLLM server.")
    known.add_argument("--model", default=answers.MODEL)
    known.add_argument("--served-model-name", default=answers.MODEL)
    known.add_argument("--host", required=True)
    known.add_argument("--port", type=int, required=True)
    known.add_argument("--middleware", action="append", default=[])
    known.add_argument("--distributed-executor-backend", choices=["ray"], default="ray")
    known.add_argument("--pipeline-parallel-size", type=int, default=1)
    known.add_argument("--tensor-parallel-size", type=int, default=1)
    known.add_argument("--sim-load-seconds", type=float, default=0.2, help="how long it pretends to load weights")
    known.add_argument("--sim-step-ms", type=float, default=20.0, help="how long a step takes")
    for ignored in ("--compilation-config", "--kv-cache-memory-bytes"):
        known.add_argument(ignored, help="taken and ignored")
    return known


class Api:
    """The HTTP face."""

    def __init__(self, engine: Engine, metrics: Metrics, model: str) -> None:
        self._engine = engine
        self._metrics = metrics
        self._model = model

    def app(self, middleware: Sequence[str]) -> Starlette:
        """The application, behind the middleware that is named as ``module.Class``."""
        routes = [
            Route("/health", self.health),
            Route("/version", self.version),
            Route("/metrics", self.metrics),
            Route("/v1/models", self.models),
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
        ]
        return Starlette(routes=routes, middleware=[Middleware(_load(name)) for name in middleware])

    async def health(self, _: Request) -> Response:
        """200 until the engine is known to be dead; nobody asks a rank, as in vLLM."""
        return Response(status_code=503 if self._engine.dead else 200)

    async def version(self, _: Request) -> Response:
        """What this is."""
        return JSONResponse({"version": "simulated"})

    async def metrics(self, _: Request) -> Response:
        """vLLM's names."""
        return Response(self._metrics.text(), media_type="text/plain")

    async def models(self, _: Request) -> Response:
        """The one model."""
        card = {"id": self._model, "object": "model", "owned_by": "simulated"}
        return JSONResponse({"object": "list", "data": [card]})

    async def completions(self, request: Request) -> Response:
        """Complete a prompt."""
        body = await request.json()
        prompt = str(body.get("prompt", ""))
        return await self._answer(body, prompt, "text_completion", lambda text: {"text": text})

    async def chat(self, request: Request) -> Response:
        """Answer a chat."""
        body = await request.json()
        prompt = answers.chat_prompt(body.get("messages", []))
        if body.get("stream"):
            return await self._answer(body, prompt, "chat.completion.chunk", lambda text: {"delta": {"content": text}})
        return await self._answer(
            body, prompt, "chat.completion", lambda text: {"message": {"role": "assistant", "content": text}}
        )

    async def _answer(self, body: dict[str, Any], prompt: str, kind: str, choice: Any) -> Response:
        wanted = int(body.get("max_tokens") or body.get("max_completion_tokens") or 16)
        counted = answers.prompt_tokens(prompt)
        usage = {"prompt_tokens": counted, "completion_tokens": wanted, "total_tokens": counted + wanted}
        head = {"object": kind, "created": int(time.time()), "model": self._model}
        tokens = self._engine.generate(prompt, wanted, counted)
        if body.get("stream"):
            asked = bool((body.get("stream_options") or {}).get("include_usage"))
            pieces = _stream(tokens, head, choice, usage if asked else None)
            return StreamingResponse(pieces, media_type="text/event-stream")
        try:
            text = "".join([piece async for piece in tokens])
        except EngineDead as error:
            return JSONResponse({"error": {"message": f"EngineDeadError: {error}", "code": 500}}, status_code=500)
        choices = [{"index": 0, "finish_reason": "length", **choice(text)}]
        return JSONResponse({**head, "choices": choices, "usage": usage})


async def _stream(
    tokens: AsyncIterator[str], head: dict[str, Any], choice: Any, usage: dict[str, int] | None
) -> AsyncIterator[str]:
    try:
        async for text in tokens:
            yield _event({**head, "choices": [{"index": 0, **choice(text)}]})
    except EngineDead as error:
        yield _event({"error": {"message": f"EngineDeadError: {error}", "code": 500}})
        return
    if usage is not None:
        yield _event({**head, "choices": [], "usage": usage})
    yield "data: [DONE]\n\n"


def _event(document: dict[str, Any]) -> str:
    return f"data: {json.dumps(document)}\n\n"


def _load(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


async def serve(engine: Engine, app: Starlette, host: str, port: int) -> None:
    """Serve until a signal comes, or the engine has died."""
    server = uvicorn.Server(uvicorn.Config(app, host=host, port=port, log_config=None, access_log=False))
    died = asyncio.Event()
    engine.follow(asyncio.get_running_loop(), died)
    serving = asyncio.create_task(server.serve())
    dying = asyncio.create_task(died.wait())
    await asyncio.wait({serving, dying}, return_when=asyncio.FIRST_COMPLETED)
    if died.is_set():
        log.error("EngineDeadError: EngineCore encountered an issue (simulated)")
        await asyncio.sleep(DYING)
        server.should_exit = True
    dying.cancel()
    await asyncio.wait({serving}, timeout=5)


def main() -> None:
    """Run the server to its end."""
    logging.basicConfig(level=logging.INFO, format="(APIServer pid=%(process)d) %(levelname)s %(message)s")
    words = parser().parse_args()
    log.info("simulated engine: no model, no GPU; answers follow from the prompt")
    metrics = Metrics()
    world = words.pipeline_parallel_size * words.tensor_parallel_size
    engine = Engine(Sizes(world, words.sim_load_seconds, words.sim_step_ms / 1000), metrics)
    try:
        if engine.wait_ready():
            app = Api(engine, metrics, words.served_model_name).app(words.middleware)
            asyncio.run(serve(engine, app, words.host, words.port))
        else:
            log.error("RuntimeError: Engine core initialization failed (simulated)")
    finally:
        engine.stop()


if __name__ == "__main__":
    main()
