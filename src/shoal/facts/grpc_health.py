"""Whether a gRPC server says that it serves: ``grpc.health.v1.Health/Check`` over plain-text HTTP/2, by hand.

Ray's GCS and raylets answer it, without a token. grpcio is not in every vLLM image and costs memory, and one
call needs little of HTTP/2: header literals that are neither indexed nor Huffman coded, one DATA frame each way.
Response headers are not decoded; the DATA says all there is to know. RFC 9113, RFC 7541 section 6.2.2.
"""

import asyncio
import contextlib
import errno
import os
import socket
import struct
from dataclasses import dataclass

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_SIZE = 9
MAX_FRAME = 16384  # what HTTP/2 allows a peer until told otherwise; the first bytes of other protocols are far above
MAX_FRAMES = 64
MAX_BYTES = 65536
STREAM = 1
SERVING = b"\x08\x01"

NOT_GRPC = "not a gRPC server"
CLOSED = "connection closed"
# The machine lives, and nobody listens: the process has ended. A process that is stopped takes connections.
REFUSED = os.strerror(errno.ECONNREFUSED).lower()


@dataclass(frozen=True)
class Health:
    """The answer: true where it serves. ``reason`` is empty then, else why not, in words."""

    serving: bool
    reason: str

    def __bool__(self) -> bool:
        return self.serving


HEALTHY = Health(serving=True, reason="")


def unhealthy(reason: str) -> Health:
    """It does not serve, and why."""
    return Health(serving=False, reason=reason)


@dataclass(frozen=True)
class FrameHeader:
    """The nine bytes before each frame's payload; ``length`` in bytes."""

    length: int
    kind: int
    flags: int
    stream: int


def parse_header(raw: bytes) -> FrameHeader:
    """Nine bytes as a frame header."""
    high, low, kind, flags, stream = struct.unpack(">BHBBI", raw)
    return FrameHeader(high << 16 | low, kind, flags, stream & 0x7FFFFFFF)


def encode_frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame, header and payload."""
    return struct.pack(">BHBBI", len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


def encode_string(text: str) -> bytes:
    """An HPACK string without Huffman coding: its length as an integer with a 7-bit prefix, then its bytes."""
    data = text.encode("ascii", errors="replace")
    if len(data) < 127:
        return bytes([len(data)]) + data
    size, rest = bytearray([127]), len(data) - 127
    while rest >= 128:
        size.append(rest % 128 + 128)
        rest //= 128
    size.append(rest)
    return bytes(size) + data


def encode_request(host: str, port: int) -> bytes:
    """Everything the client has to say: preface, settings, one call with an empty message."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/grpc.health.v1.Health/Check",
        ":authority": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    block = b"".join(b"\x00" + encode_string(name) + encode_string(value) for name, value in fields.items())
    message = struct.pack(">BI", 0, 0)
    return (
        PREFACE
        + encode_frame(SETTINGS, 0, 0)
        + encode_frame(HEADERS, END_HEADERS, STREAM, block)
        + encode_frame(DATA, END_STREAM, STREAM, message)
    )


def reply_to(header: FrameHeader, payload: bytes) -> bytes:
    """What the protocol owes the peer for this frame: the acknowledgement of SETTINGS and PING, else nothing."""
    if header.flags & ACK or header.kind not in (SETTINGS, PING):
        return b""
    return encode_frame(header.kind, ACK, 0, payload if header.kind == PING else b"")


def data_of(header: FrameHeader, payload: bytes) -> bytes:
    """The payload of a DATA frame without its padding."""
    if not header.flags & PADDED:
        return payload
    return payload[1 : len(payload) - payload[0]] if payload else b""


def judge_body(body: bytes) -> Health | None:
    """What the message says, None while it is not complete."""
    if len(body) < 5:
        return None
    compressed, size = struct.unpack(">BI", body[:5])
    if compressed or size > MAX_FRAME:
        return unhealthy(NOT_GRPC)
    if len(body) < 5 + size:
        return None
    return HEALTHY if body[5 : 5 + size] == SERVING else unhealthy("not serving")


def judge_end(header: FrameHeader) -> Health | None:
    """The verdict where this frame ends the call without an answer, else None."""
    if header.kind == GOAWAY or (header.kind == RST_STREAM and header.stream == STREAM):
        return unhealthy("call refused")
    if header.kind in (HEADERS, DATA) and header.stream == STREAM and header.flags & END_STREAM:
        return unhealthy("answered with a gRPC error")
    return None


async def serving(host: str, port: int, *, timeout: float) -> Health:  # noqa: ASYNC109 - part of every probe's answer
    """Ask once, on a connection of its own; ``timeout`` in seconds over all. Never raises for network trouble."""
    try:
        async with asyncio.timeout(timeout):
            return await _ask(host, port)
    except TimeoutError:
        return unhealthy(f"no answer within {timeout:g} s")
    except asyncio.IncompleteReadError:
        return unhealthy(CLOSED)
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that no resolver would take
        return unhealthy(reason_of(error))


def reason_of(error: Exception) -> str:
    """A failed connection in words: asyncio's own text names the address, which the caller knows."""
    if isinstance(error, OSError) and error.errno and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno).lower()
    return str(getattr(error, "strerror", None) or error)


async def _ask(host: str, port: int) -> Health:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(encode_request(host, port))
        return await _read_answer(reader, writer)
    finally:
        writer.transport.abort()  # nothing is left to say, and a cancelled probe must not wait for a silent peer
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _read_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Health:
    body, left = b"", MAX_BYTES
    for number in range(MAX_FRAMES):
        try:
            header = parse_header(await reader.readexactly(HEADER_SIZE))
        except asyncio.IncompleteReadError as error:
            return unhealthy(NOT_GRPC if error.partial and number == 0 else CLOSED)
        left -= HEADER_SIZE + header.length
        # A server's first frame is always SETTINGS.
        if left < 0 or header.length > MAX_FRAME or (number == 0 and header.kind != SETTINGS):
            return unhealthy(NOT_GRPC)
        payload = await reader.readexactly(header.length)
        writer.write(reply_to(header, payload))
        if header.kind == DATA and header.stream == STREAM:
            body += data_of(header, payload)
        for verdict in (judge_body(body), judge_end(header)):
            if verdict is not None:
                return verdict
    return unhealthy(NOT_GRPC)
