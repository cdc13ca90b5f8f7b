"""Questions to a server that speaks as vLLM does."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer as Served
from hypothesis import given
from hypothesis import strategies as st

from shoal.engine.client import Answer, EngineClient, Piece, parse_counters, stream_piece
from shoal.engine.watch import Counters
from shoal.errors import ShoalError

KEY, MODEL = "sesame", "smollm2"
METRICS = """\
# HELP vllm:generation_tokens_total Number of generation tokens processed.
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="a model"} 41.0
vllm:generation_tokens_total{engine="1",model_name="a model"} 1.5e+01
# TYPE vllm:generation_tokens_created gauge
vllm:generation_tokens_created{engine="0",model_name="a model"} 1.79e+09
vllm:prompt_tokens_total{engine="0",model_name="a model"} 99.0
vllm:iteration_tokens_total_bucket{engine="0",le="1.0",model_name="a model"} 3.0
vllm:iteration_tokens_total_count{engine="0",model_name="a model"} 7.0
vllm:num_requests_running{engine="0",model_name="a model"} 2.0
vllm:num_requests_waiting{engine="0",model_name="a model"} 1.0
"""
COUNTERS = Counters(tokens=56.0, prompt=99.0, iterations=7.0, running=2.0, waiting=1.0)


def event(document: object) -> str:
    return f"data: {json.dumps(document)}\n"


def said(text: str | None) -> str:
    return event({"choices": [{"index": 0, "delta": {"content": text}}]})


USAGE = event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}})


@pytest.mark.parametrize(
    ("line", "piece"),
    [
        (said("Par"), Piece("Par")),
        (said("é\n"), Piece("é\n")),
        (USAGE, Piece("", 2)),
        (event({"choices": [{"delta": {"role": "assistant", "content": ""}}]}), None),
        (said(None), None),
        (event({"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": None}), None),
        ("data: [DONE]\n", None),
        (": a comment\n", None),
        ("event: message\n", None),
        ("\n", None),
        ("", None),
    ],
)
def test_stream_piece(line: str, piece: Piece | None) -> None:
    """A line of the stream holds text, or the number of tokens, or nothing."""
    assert stream_piece(line) == piece


def test_an_error_in_the_stream() -> None:
    """An error in the stream is told with the engine's own words."""
    with pytest.raises(ShoalError) as caught:
        stream_piece(event({"error": {"message": "EngineCore died", "code": 500}}))
    assert caught.value.what == "the engine broke the answer off"
    assert "EngineCore died" in caught.value.why


def test_half_a_line() -> None:
    """A line that was cut off is a broken answer, not a fault of ours."""
    with pytest.raises(ShoalError, match="broke the answer off"):
        stream_piece('data: {"choices": [{"del')


def test_counters() -> None:
    """Tokens, prompts, steps and requests are summed over all engines, and nothing else is counted."""
    assert parse_counters(METRICS) == COUNTERS
    assert (COUNTERS.progress, COUNTERS.idle, Counters(5.0).idle) == ((56.0, 7.0), False, True)


@pytest.mark.parametrize("text", ["", "\n", "# HELP vllm:generation_tokens_total x\n", "vllm:prompt_tokens_total 5\n"])
def test_no_counter(text: str) -> None:
    """Text without the counter gives None, which is not zero."""
    assert parse_counters(text) is None


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=8))
def test_sums(counts: list[int]) -> None:
    """The sum is that of all engines, however many there are."""
    lines = [f'vllm:generation_tokens_total{{engine="{n}"}} {float(count)}' for n, count in enumerate(counts)]
    assert parse_counters("\n".join(lines)) == Counters(sum(counts))


def test_speed() -> None:
    """Tokens per second are over the whole answer; an answer that took no time has none."""
    assert Answer("x", 30, 1.5).tokens_per_second == 20.0
    assert Answer("x", 30, 0.0).tokens_per_second == 0.0


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def fake(path: str, handler: Handler) -> Served:
    """A server that asks for the key and answers on one path."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return web.json_response({"error": {"message": "wrong key"}}, status=401)
        return await handler(request)

    app = web.Application()
    app.router.add_route("*", path, guarded)
    return Served(app)


def client_of(server: Served, key: str = KEY) -> AbstractAsyncContextManager[EngineClient]:
    return EngineClient(f"http://127.0.0.1:{server.port}/v1", key, MODEL)


def answers(document: object, status: int = 200) -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.json_response(document, status=status)

    return handler


async def never(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


def streams(*lines: str, lost: bool = False) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for line in lines:
            await response.write(f"{line}\n".encode())
        if lost:
            assert request.transport is not None
            request.transport.abort()
        return response

    return handler


async def gather(client: EngineClient) -> tuple[list[Piece], ShoalError | None]:
    """What came of the answer, and the error that ended it."""
    pieces: list[Piece] = []
    try:
        async for piece in client.stream("Capital of France?", max_tokens=7, temperature=0.5):
            pieces += [piece]
    except ShoalError as error:
        return pieces, error
    return pieces, None


@pytest.mark.enable_socket
async def test_one_token() -> None:
    """A probe asks the model by its name for one token, and is content with one."""
    asked = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(await request.json())
        return web.json_response({"usage": {"completion_tokens": 1}})

    async with fake("/v1/completions", handler) as server, client_of(server) as client:
        assert await client.one_token(5.0)
    assert asked == [{"model": MODEL, "prompt": "1", "max_tokens": 1, "temperature": 0}]


@pytest.mark.enable_socket
@pytest.mark.parametrize(
    "handler",
    [
        answers({"usage": {"completion_tokens": 0}}),
        answers({}),
        answers({"usage": None}),
        answers({"error": "dead"}, status=500),
        answers({"usage": {"completion_tokens": 1}}, status=503),
        streams("no JSON"),
        streams(lost=True),
    ],
)
async def test_no_token(handler: Handler) -> None:
    """Any other answer to a probe is no token, and no fault."""
    async with fake("/v1/completions", handler) as server, client_of(server) as client:
        assert not await client.one_token(5.0)


@pytest.mark.enable_socket
async def test_no_answer() -> None:
    """A server that accepts and stays silent gives no token, no counter and no health, each within its patience."""
    async with fake("/{path:.*}", never) as server, client_of(server) as client:
        got = [await client.one_token(0.01), await client.counters(0.01), await client.healthy(0.01)]
    assert got == [False, None, False]


@pytest.mark.enable_socket
async def test_nobody_there() -> None:
    """Where nobody listens there is no token, no counter and no health, and a question is refused with a reason."""
    async with fake("/", never) as server:
        gone = client_of(server)
    async with gone as client:
        got = [await client.one_token(1.0), await client.counters(1.0), await client.healthy(1.0)]
        pieces, error = await gather(client)
    assert got == [False, None, False]
    assert pieces == []
    assert error is not None
    assert (error.what, error.fix) == ("the engine did not answer", "shoal status")
    assert error.why


@pytest.mark.enable_socket
async def test_health_and_counter() -> None:
    """Health is code 200 at /health, the counter is at /metrics, both beside /v1."""

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(text=METRICS if request.path == "/metrics" else "", status=200)

    async with fake("/{path:health|metrics}", handler) as server, client_of(server) as client:
        assert (await client.healthy(), await client.counters()) == (True, COUNTERS)


@pytest.mark.enable_socket
async def test_stream() -> None:
    """An answer comes piece by piece, with the number of tokens at its end."""
    asked = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(await request.json())
        return await streams(said("Par"), said("is"), USAGE, "data: [DONE]\n")(request)

    async with fake("/v1/chat/completions", handler) as server, client_of(server) as client:
        assert await gather(client) == ([Piece("Par"), Piece("is"), Piece("", 2)], None)
    assert asked == [
        {
            "model": MODEL,
            "messages": [{"role": "user", "content": "Capital of France?"}],
            "max_tokens": 7,
            "temperature": 0.5,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]


@pytest.mark.enable_socket
async def test_wrong_key() -> None:
    """With a wrong key there is no token and no counter, and a question is refused with the server's words."""
    async with fake("/{path:.*}", streams(said("no"))) as server, client_of(server, "wrong") as client:
        assert (await client.one_token(5.0), await client.counters(5.0)) == (False, None)
        pieces, error = await gather(client)
    assert pieces == []
    assert error is not None
    assert (error.what, error.why) == ("the engine answered 401", '{"error": {"message": "wrong key"}}')


@pytest.mark.enable_socket
async def test_broken_stream() -> None:
    """A connection that is lost within the answer is an error, after the pieces that had come."""
    handler = streams(said("Par"), lost=True)
    async with fake("/v1/chat/completions", handler) as server, client_of(server) as client:
        pieces, error = await gather(client)
    assert pieces in ([Piece("Par")], [])
    assert error is not None
    assert error.what == "the engine did not answer"


@pytest.mark.enable_socket
async def test_an_engine_that_dies_within_the_answer() -> None:
    """An error in the stream ends the answer, after the pieces that had come."""
    handler = streams(said("Par"), event({"error": {"message": "EngineCore died"}}))
    async with fake("/v1/chat/completions", handler) as server, client_of(server) as client:
        pieces, error = await gather(client)
    assert pieces == [Piece("Par")]
    assert error is not None
    assert error.what == "the engine broke the answer off"


@pytest.mark.enable_socket
async def test_a_cut_line() -> None:
    """A stream that ends within a line is a broken answer."""
    handler = streams(said("Par"), 'data: {"choi')
    async with fake("/v1/chat/completions", handler) as server, client_of(server) as client:
        pieces, error = await gather(client)
    assert pieces == [Piece("Par")]
    assert error is not None
