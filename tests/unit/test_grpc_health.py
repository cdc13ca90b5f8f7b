"""What the hand-written gRPC health probe makes of the servers it may meet."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from shoal.facts import grpc_health as grpc
from shoal.facts.grpc_health import HEALTHY, Health, encode_frame, serving, unhealthy

SETTINGS = encode_frame(grpc.SETTINGS, 0, 0)
HEADERS = encode_frame(grpc.HEADERS, grpc.END_HEADERS, 1, b"\x88")
TRAILERS = encode_frame(grpc.HEADERS, grpc.END_HEADERS | grpc.END_STREAM, 1, b"\x88")

# Each test talks to a server of its own on loopback.
pytestmark = pytest.mark.enable_socket

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def data(message: bytes, flags: int = 0) -> bytes:
    return encode_frame(grpc.DATA, flags, 1, struct.pack(">BI", 0, len(message)) + message)


SERVES = SETTINGS + HEADERS + data(b"\x08\x01") + TRAILERS


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[int]:
    """A server on loopback that treats each connection by ``serve``; its port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    running = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with running:
        yield running.sockets[0].getsockname()[1]


def says(*chunks: bytes) -> Serve:
    """A server that reads the request, writes the chunks one by one and closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(grpc.PREFACE))
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(0)

    return serve


async def ask(*chunks: bytes) -> Health:
    async with server(says(*chunks)) as port:
        return await serving("127.0.0.1", port, timeout=5)


async def test_a_server_that_answers_serving_is_healthy_and_gives_no_reason() -> None:
    assert await ask(SERVES) == HEALTHY


@pytest.mark.parametrize("message", [b"", b"\x08\x00", b"\x08\x02", b"\x08\x03"])
async def test_any_other_status_is_not_serving(message: bytes) -> None:
    assert await ask(SETTINGS + HEADERS + data(message) + TRAILERS) == unhealthy("not serving")


async def test_not_serving_is_false_as_a_condition() -> None:
    assert not await ask(SETTINGS + HEADERS + data(b"\x08\x02"))


async def test_an_answer_that_arrives_byte_by_byte_is_understood() -> None:
    assert await ask(*(SERVES[i : i + 1] for i in range(len(SERVES)))) == HEALTHY


async def test_a_message_spread_over_several_data_frames_is_understood() -> None:
    whole = struct.pack(">BI", 0, 2) + b"\x08\x01"
    frames = [encode_frame(grpc.DATA, 0, 1, whole[i : i + 3]) for i in range(0, len(whole), 3)]
    assert await ask(SETTINGS, HEADERS, *frames) == HEALTHY


async def test_padding_is_no_part_of_the_message() -> None:
    padded = b"\x04" + struct.pack(">BI", 0, 2) + b"\x08\x01" + b"\0" * 4
    frame = encode_frame(grpc.DATA, grpc.PADDED | grpc.END_STREAM, 1, padded)
    assert await ask(SETTINGS + HEADERS + frame) == HEALTHY


async def test_data_of_another_stream_is_ignored() -> None:
    other = encode_frame(grpc.DATA, 0, 3, struct.pack(">BI", 0, 2) + b"\x08\x02")
    assert await ask(SETTINGS + other + HEADERS + data(b"\x08\x01")) == HEALTHY


async def test_settings_and_ping_are_acknowledged_before_the_answer_is_waited_for() -> None:
    expected = encode_frame(grpc.SETTINGS, grpc.ACK, 0) + encode_frame(grpc.PING, grpc.ACK, 0, b"abcdefgh")
    seen = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(grpc.encode_request("127.0.0.1", writer.get_extra_info("sockname")[1])))
        writer.write(SETTINGS + encode_frame(grpc.PING, 0, 0, b"abcdefgh"))
        seen.append(await reader.readexactly(len(expected)))
        writer.write(SERVES)
        await writer.drain()

    async with server(serve) as port:
        assert await serving("127.0.0.1", port, timeout=5)
    assert seen == [expected]


async def test_a_call_that_ends_without_a_message_is_a_grpc_error() -> None:
    assert await ask(SETTINGS + TRAILERS) == unhealthy("answered with a gRPC error")


@pytest.mark.parametrize("frame", [encode_frame(grpc.GOAWAY, 0, 0, b"\0" * 8), encode_frame(3, 0, 1, b"\0" * 4)])
async def test_a_reset_or_goaway_is_a_refused_call(frame: bytes) -> None:
    assert await ask(SETTINGS + frame) == unhealthy("call refused")


@pytest.mark.parametrize(
    "text",
    [
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"-ERR x\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"\0" * 64,
        SETTINGS + data(b"x" * 20000),
        SETTINGS + HEADERS + encode_frame(grpc.DATA, 0, 1, b"\1\0\0\0\2\x08\x01"),
    ],
)
async def test_another_protocol_is_not_a_grpc_server(text: bytes) -> None:
    assert await ask(text) == unhealthy("not a gRPC server")


async def test_a_server_that_talks_without_end_is_left() -> None:
    assert await ask(*[SETTINGS] * 1000) == unhealthy("not a gRPC server")


async def test_more_than_64_kib_are_not_read() -> None:
    assert await ask(SETTINGS, *[encode_frame(grpc.DATA, 0, 3, b"x" * 16384)] * 5) == unhealthy("not a gRPC server")


@pytest.mark.parametrize("said", [b"", SETTINGS, SETTINGS + HEADERS[:4], SETTINGS + HEADERS[:-1]])
async def test_a_server_that_hangs_up_is_a_closed_connection(said: bytes) -> None:
    assert await ask(said) == unhealthy("connection closed")


async def test_silence_is_named_with_the_time_that_was_waited() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with server(silent) as port:
        assert await serving("127.0.0.1", port, timeout=0.05) == unhealthy("no answer within 0.05 s")


async def test_a_closed_port_is_refused() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert await serving("127.0.0.1", free.getsockname()[1], timeout=5) == unhealthy("connection refused")


async def test_a_name_that_no_resolver_takes_is_an_answer_and_no_exception() -> None:
    health = await serving("a..b", 1, timeout=5)
    assert not health.serving
    assert health.reason


async def test_a_cancelled_probe_closes_its_connection() -> None:
    arrived, left = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(grpc.PREFACE))
        arrived.set()
        try:
            await reader.read()
        finally:
            left.set()

    async with server(serve) as port:
        probe = asyncio.create_task(serving("127.0.0.1", port, timeout=60))
        await asyncio.wait_for(arrived.wait(), 5)
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        await asyncio.wait_for(left.wait(), 5)


def test_a_frame_header_survives_encoding_and_parsing() -> None:
    raw = encode_frame(grpc.DATA, 1, 5, b"x" * 70000)[: grpc.HEADER_SIZE]
    assert grpc.parse_header(raw) == grpc.FrameHeader(70000, grpc.DATA, 1, 5)


@pytest.mark.parametrize(
    ("length", "prefix"),
    [(0, b"\x00"), (126, b"\x7e"), (127, b"\x7f\x00"), (254, b"\x7f\x7f"), (1337, b"\x7f\xba\x09")],
)
def test_string_lengths_are_hpack_integers_with_a_seven_bit_prefix(length: int, prefix: bytes) -> None:
    assert grpc.encode_string("x" * length) == prefix + b"x" * length


def test_an_ipv6_address_is_bracketed_in_the_authority() -> None:
    assert b"[fd00::2]:6379" in grpc.encode_request("fd00::2", 6379)
