"""Who gets past the key guard, and what becomes of the others."""

import json
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from shoal.engine.guard import DRAINING, KEY_FILE, KeyGuard
from shoal.engine.keys import ensure_key
from shoal.errors import ConfigError, ShoalError

KEY = b"sesame-0123456789"
Header = tuple[bytes, bytes]


class Inner:
    """The guarded app: remembers which connections reached it."""

    def __init__(self) -> None:
        self.reached: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached.append(scope["type"])
        await send({"type": "inner"})


@pytest.fixture
def key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "key"
    file.write_bytes(KEY + b"\n")
    monkeypatch.setenv(KEY_FILE, str(file))
    return file


async def ask(
    headers: Iterable[Header] = (), *, path: str = "/v1/models", method: str = "GET", kind: str = "http", **more: Any
) -> list[dict[str, Any]]:
    """What a fresh guard sends back; ``[{"type": "inner"}]`` where the request got through."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        raise AssertionError("the guard reads no body")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": kind, "path": path, "method": method, "headers": list(headers), "query_string": b""} | more
    await KeyGuard(Inner())(scope, receive, send)
    return sent


def passed(sent: list[dict[str, Any]]) -> bool:
    return sent == [{"type": "inner"}]


def bearer(key: bytes, name: bytes = b"authorization", scheme: bytes = b"Bearer") -> Header:
    return (name, scheme + b" " + key)


@pytest.mark.usefixtures("key_file")
@pytest.mark.parametrize("name", [b"authorization", b"Authorization", b"AUTHORIZATION", b"aUtHoRiZaTiOn"])
@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer"])
async def test_the_key_opens_in_any_spelling_of_header_name_and_scheme(name: bytes, scheme: bytes) -> None:
    """RFC 9110: header names and schemes have no case."""
    assert passed(await ask([(b"host", b"x"), bearer(KEY, name, scheme)]))


@pytest.mark.usefixtures("key_file")
@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", KEY)],
        [bearer(KEY, scheme=b"Basic")],
        [bearer(KEY, scheme=b"Token")],
        [bearer(KEY, scheme=b"BearerX")],
        [bearer(KEY[:-1])],
        [bearer(KEY + b"x")],
        [bearer(KEY + b" ")],
        [bearer(b" " + KEY)],
        [bearer(KEY.upper())],
        [bearer(KEY + b"\n")],
        [bearer(b"\xff\xfe" + KEY)],
        [bearer(KEY, name=b"x-api-key")],
        [bearer(KEY, name=b"proxy-authorization")],
        [bearer(KEY, name=b"authorization ")],
        [(b"cookie", b"authorization=Bearer " + KEY)],
        [(b"authorization", b"Bearer " + KEY + b", Bearer " + KEY)],
    ],
)
async def test_anything_but_the_key_in_its_header_is_refused(headers: list[Header]) -> None:
    """Every request that lacks exactly `Authorization: Bearer KEY` gets 401."""
    assert (await ask(headers))[0]["status"] == 401


@pytest.mark.usefixtures("key_file")
@pytest.mark.parametrize(
    "second", [bearer(KEY), bearer(b"wrong"), bearer(KEY, name=b"AUTHORIZATION"), (b"authorization", b"")]
)
async def test_two_authorization_headers_are_refused_even_where_one_is_right(second: Header) -> None:
    """Exactly one header counts, in either order."""
    assert (await ask([bearer(KEY), second]))[0]["status"] == 401
    assert (await ask([second, bearer(KEY)]))[0]["status"] == 401


@pytest.mark.usefixtures("key_file")
@pytest.mark.parametrize("path", ["/invocations", "/tokenize", "/metrics", "/ping", "/docs", "/openapi.json", "/", ""])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "HEAD", "DELETE", "TRACE", "get"])
async def test_every_path_and_method_needs_the_key(path: str, method: str) -> None:
    """Also those that vLLM's own --api-key leaves open, and the browser's OPTIONS."""
    assert (await ask(path=path, method=method))[0]["status"] == 401


@pytest.mark.usefixtures("key_file")
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("query", [b"", b"x", b"path=/v1/models"])
async def test_health_needs_no_key(method: str, query: bytes) -> None:
    """Probes ask /health, with or without a query."""
    assert passed(await ask(path="/health", method=method, query_string=query))


@pytest.mark.usefixtures("key_file")
@pytest.mark.parametrize("method", ["POST", "OPTIONS", "PUT", "DELETE", "get", "GET "])
async def test_health_is_open_to_get_and_head_only(method: str) -> None:
    """Other methods on /health need the key."""
    assert (await ask(path="/health", method=method))[0]["status"] == 401


@pytest.mark.usefixtures("key_file")
@pytest.mark.parametrize(
    "path",
    ["/health/", "//health", "/HEALTH", "/Health", "health", "/health?x", "/health/../v1/models", "/health\n",
     "/v1/health", "/./health", "/health;x", "/healthz", "/health%00", "/health\x00", "/x/../health"],
)  # fmt: skip
async def test_what_only_looks_like_health_needs_the_key(path: str) -> None:
    """The open path is /health, character by character."""
    assert (await ask(path=path))[0]["status"] == 401


@pytest.mark.usefixtures("key_file")
async def test_a_refusal_is_a_whole_openai_error_that_does_not_tell_the_key() -> None:
    """Clients parse the body, and see the scheme to use."""
    import json

    start, body = await ask([bearer(b"guess")])
    headers = dict(start["headers"])
    assert headers[b"www-authenticate"] == b"Bearer"
    assert headers[b"content-type"] == b"application/json"
    assert int(headers[b"content-length"]) == len(body["body"])
    assert json.loads(body["body"])["error"]["code"] == "invalid_api_key"
    assert KEY not in body["body"]
    assert b"guess" not in body["body"]


@pytest.mark.usefixtures("key_file")
@pytest.mark.parametrize("path", ["/v1/realtime", "/health"])
async def test_a_websocket_without_the_key_is_closed_before_it_is_accepted(path: str) -> None:
    """/health is open to HTTP only."""
    (message,) = await ask(kind="websocket", path=path)
    assert (message["type"], message["code"]) == ("websocket.close", 1008)


@pytest.mark.usefixtures("key_file")
async def test_a_websocket_with_the_key_gets_through() -> None:
    """The header is the same as for HTTP."""
    assert passed(await ask([bearer(KEY)], kind="websocket"))


@pytest.mark.usefixtures("key_file")
async def test_lifespan_gets_through() -> None:
    """The server's start and end are not requests."""
    inner = Inner()

    async def send(message: Any) -> None:
        assert message == {"type": "inner"}

    await KeyGuard(inner)({"type": "lifespan"}, lambda: None, send)  # type: ignore[arg-type,return-value]
    assert inner.reached == ["lifespan"]


@pytest.mark.usefixtures("key_file")
async def test_an_unknown_kind_of_connection_is_refused_even_with_the_key() -> None:
    """What the guard cannot judge does not reach the app."""
    with pytest.raises(ShoalError, match="webtransport"):
        await ask([bearer(KEY)], kind="webtransport")


async def test_the_key_is_read_once(key_file: Path) -> None:
    """A file that changes or goes later changes nothing for a running server."""
    inner = Inner()
    guard = KeyGuard(inner)
    key_file.unlink()

    async def send(message: Any) -> None:
        assert message["type"] == "inner"

    await guard({"type": "http", "path": "/", "method": "GET", "headers": [bearer(KEY)]}, lambda: None, send)  # type: ignore[arg-type,return-value]
    assert inner.reached == ["http"]


def test_no_guard_without_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unset SHOAL_API_KEY_FILE is an error, not an open door."""
    monkeypatch.delenv(KEY_FILE, raising=False)
    with pytest.raises(ConfigError, match=f"{KEY_FILE} is not set"):
        KeyGuard(Inner())
    monkeypatch.setenv(KEY_FILE, "")
    with pytest.raises(ConfigError, match=f"{KEY_FILE} is not set"):
        KeyGuard(Inner())


@pytest.mark.parametrize("content", [b"", b"\n", b" \t\r\n", b"two keys", b"one\ntwo", b"k\xc3\xa9y", b"nul\x00"])
def test_no_guard_with_a_key_that_cannot_be_sent(key_file: Path, content: bytes) -> None:
    """Empty files and keys that fit in no header are refused, and the text never shows the key."""
    key_file.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        KeyGuard(Inner())
    assert "two" not in str(error.value)


def test_no_guard_with_a_file_that_cannot_be_read(key_file: Path) -> None:
    """The error names the file."""
    key_file.unlink()
    with pytest.raises(ConfigError, match=str(key_file)):
        KeyGuard(Inner())
    key_file.mkdir()
    with pytest.raises(ConfigError, match=str(key_file)):
        KeyGuard(Inner())


async def test_a_server_whose_guard_cannot_be_made_serves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starlette makes middleware late; each connection then fails, /health too."""
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route
    from starlette.testclient import TestClient

    monkeypatch.delenv(KEY_FILE, raising=False)
    app = Starlette(routes=[Route("/health", lambda _: PlainTextResponse("up"))])
    app.add_middleware(KeyGuard)
    client = TestClient(app)
    for _ in range(2):
        with pytest.raises(ConfigError):
            client.get("/health")


def test_a_new_key_is_for_its_owner_only_and_is_kept(tmp_path: Path) -> None:
    """The second call changes nothing, and no temporary file stays."""
    file = tmp_path / "state" / "key"
    ensure_key(file)
    first = file.read_text()
    ensure_key(file)
    assert file.read_text() == first
    assert len(first.strip()) >= 43
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [entry.name for entry in file.parent.iterdir()] == ["key"]


def test_a_new_key_is_one_that_the_guard_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one writes the other reads."""
    ensure_key(tmp_path / "key")
    monkeypatch.setenv(KEY_FILE, str(tmp_path / "key"))
    KeyGuard(Inner())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o601])
def test_a_key_file_open_to_others_is_refused_with_the_command_that_closes_it(tmp_path: Path, mode: int) -> None:
    """The key itself is neither changed nor shown."""
    file = tmp_path / "my key"
    file.write_bytes(KEY)
    file.chmod(mode)
    with pytest.raises(ConfigError) as error:
        ensure_key(file)
    assert error.value.fix == f"chmod 600 '{file}'"
    assert KEY.decode() not in str(error.value)


def test_an_empty_key_file_is_refused(tmp_path: Path) -> None:
    """It would end in a server that cannot start."""
    (tmp_path / "key").touch(mode=0o600)
    with pytest.raises(ConfigError, match="is empty"):
        ensure_key(tmp_path / "key")


def test_a_key_file_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "state").touch()
    with pytest.raises(ConfigError, match="cannot make"):
        ensure_key(tmp_path / "state" / "key")


def test_a_folder_in_place_of_the_key_file_is_told(tmp_path: Path) -> None:
    """It is no key file, whatever its mode."""
    with pytest.raises(ConfigError, match="is not a file"):
        ensure_key(tmp_path)


async def test_a_drain_turns_new_requests_away(tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the file is there a new request gets 503 and when to come back; looking on stays possible."""
    monkeypatch.setenv("SHOAL_STATE_DIR", str(tmp_path))
    key = [bearer(KEY)]
    assert passed(await ask(key, method="POST"))
    (tmp_path / DRAINING).touch()
    sent = await ask(key, path="/v1/chat/completions", method="POST")
    assert (sent[0]["status"], dict(sent[0]["headers"])[b"retry-after"]) == (503, b"10")
    assert json.loads(sent[1]["body"])["error"]["code"] == "restarting"
    assert [passed(await ask(key, path=path)) for path in ("/metrics", "/health")] == [True, True]
    assert (await ask(method="POST"))[0]["status"] == 401
    (tmp_path / DRAINING).unlink()
    assert passed(await ask(key, method="POST"))
