"""The key at the door of vLLM's server: an ASGI middleware, given as ``--middleware shoal.engine.guard.KeyGuard``.

vLLM's own ``--api-key`` leaves ``/invocations``, ``/tokenize`` and others open. This one lets nothing pass without the
key but ``GET /health``. It is imported inside vLLM's server, so it needs the standard library only.
"""

import hmac
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from shoal.errors import ConfigError, ShoalError
from shoal.spec.environ import environ

KEY_FILE = "SHOAL_API_KEY_FILE"
# While this file is in the state folder, new requests are turned away: a restart is planned.
DRAINING = "draining"
RETRY_AFTER = 10

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY_VIOLATION = 1008
REFUSAL = json.dumps(
    {
        "error": {
            "message": "Missing or wrong API key: send it as `Authorization: Bearer KEY`.",
            "type": "invalid_request_error",
            "param": None,
            "code": "invalid_api_key",
        }
    }
).encode()

AWAY = json.dumps(
    {
        "error": {
            "message": "The engine is about to be restarted: try again in a moment.",
            "type": "server_error",
            "param": None,
            "code": "restarting",
        }
    }
).encode()


def drain_file(state_dir: str) -> Path | None:
    """The file that turns requests away; None where there is no state folder."""
    return Path(state_dir) / DRAINING if state_dir else None


def read_key(env: Mapping[str, str]) -> bytes:
    """The key in the file that ``SHOAL_API_KEY_FILE`` names; ConfigError where there is none to compare with."""
    name = env.get(KEY_FILE, "")
    if not name:
        raise ConfigError(f"{KEY_FILE} is not set", why="the endpoint is never served without a key")
    try:
        key = Path(name).read_bytes().strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the API key file {name!r} of {KEY_FILE}", why=str(error)) from error
    if not key:
        raise ConfigError(f"the API key file {name} is empty", fix=f"remove it; shoal makes a new key ({KEY_FILE})")
    # Anything else cannot arrive in a header: the endpoint would be closed to everybody, and nobody would know why.
    if not all(0x21 <= byte <= 0x7E for byte in key):
        raise ConfigError(f"the API key file {name} must hold one key of printable ASCII without spaces")
    return key


class KeyGuard:
    """Passes requests that carry the key, and ``GET`` or ``HEAD`` of exactly ``/health``; refuses all others.

    Raises:
        ConfigError: at construction, where there is no key; an unguarded endpoint must never start.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._key = read_key(environ())
        self._drain = drain_file(environ().get("SHOAL_STATE_DIR", ""))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        kind = scope["type"]
        if kind == "http" and self._turns_away(scope):
            await _refuse(send, 503, AWAY, (b"retry-after", str(RETRY_AFTER).encode()))
        elif kind == "lifespan" or (kind in ("http", "websocket") and (_is_health(scope) or self._has_key(scope))):
            await self._app(scope, receive, send)
        elif kind == "http":
            await _refuse(send, 401, REFUSAL, (b"www-authenticate", b"Bearer"))
        elif kind == "websocket":
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": "missing or wrong API key"})
        else:
            raise ShoalError(f"a connection of type {kind} cannot be guarded")

    def _turns_away(self, scope: Scope) -> bool:
        """Whether this is new work at a moment when none is taken. Looking on stays possible: metrics, health."""
        return scope["method"] == "POST" and self._drain is not None and self._drain.exists() and self._has_key(scope)

    def _has_key(self, scope: Scope) -> bool:
        sent = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
        # Two headers could be read differently by whoever else reads them; so it is exactly one.
        if len(sent) != 1:
            return False
        scheme, _, key = bytes(sent[0]).partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(key, self._key)


def _is_health(scope: Scope) -> bool:
    return scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and scope["path"] == "/health"


async def _refuse(send: Send, status: int, body: bytes, header: tuple[bytes, bytes]) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), header]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
