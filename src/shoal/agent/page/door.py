"""Who may see the page: who has shown the API key once, in a browser that nobody else has led here.

A browser is a stranger, on loopback too: whatever site it has open can send requests to 127.0.0.1. So every answer
wants a session; the name by which we are called must be ours, for a name that somebody else's DNS has turned to our
address is not; and what changes something must come from a page of ours.
"""

import hmac
import ipaddress
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable
from http.cookies import CookieError, SimpleCookie

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from shoal.agent.page.sessions import Sessions

Handler = Callable[[Request], Awaitable[Response]]
WINDOW, MOST_OF_ONE, MOST_OF_ALL = 60.0, 8, 100
HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(?::\d{1,5})?")
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


def is_our_name(host: str | None, address: str) -> bool:
    """Whether a Host header names this page: loopback, or the node's own address. Pure."""
    found = HOST.fullmatch(host or "")
    if found is None:
        return False
    name = found[1].strip("[]").lower()
    if name == "localhost":
        return True
    try:
        called = ipaddress.ip_address(name)
    except ValueError:
        return False
    return called.is_loopback or called == ipaddress.ip_address(address)


def is_our_page(origin: str | None, site: str | None, host: str, *, acts: bool) -> bool:
    """Whether a request comes from a page of ours, by Origin and Sec-Fetch-Site.

    Browsers send an origin with everything that acts. Pure.
    """
    if site not in {None, "same-origin", "none"}:
        return False
    if origin is None:
        return not acts
    return origin == f"http://{host}"


class Attempts:
    """Counts wrong keys: a few in a minute from one address, some more from all together."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: deque[tuple[float, str]] = deque(maxlen=MOST_OF_ALL)

    def allowed(self, client: str) -> bool:
        """Whether this address may try again."""
        recent = [who for at, who in self._wrong if self._clock() - at < WINDOW]
        return len(recent) < MOST_OF_ALL and recent.count(client) < MOST_OF_ONE

    def failed(self, client: str) -> None:
        """One more wrong key."""
        self._wrong.append((self._clock(), client))


class Door:
    """Lets requests in, and gives every answer the headers that keep a browser from being misled."""

    def __init__(self, address: str, port: int, key: Callable[[], str | None], sessions: Sessions) -> None:
        self._address = address
        self.cookie = f"shoal-{port}"  # cookies know no ports: another head at this address has another name
        self._key = key
        self._sessions = sessions
        self._attempts = Attempts()

    def public(self, handler: Handler) -> Handler:
        """For everybody who calls us by our name from a page of ours: the form, and what it looks like."""

        async def guarded(request: Request) -> Response:
            return self._sealed(self._stranger(request) or await handler(request))

        return guarded

    def private(self, handler: Handler) -> Handler:
        """For those who have a session."""

        async def guarded(request: Request) -> Response:
            refused = self._stranger(request) or self._without_session(request)
            return self._sealed(refused or await handler(request))

        return guarded

    def _stranger(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        if not is_our_name(host, self._address):
            return PlainTextResponse(f"this page answers to localhost and to {self._address} only\n", 421)
        acts = request.method not in {"GET", "HEAD"}
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
        # A link on another site may lead to the page itself, which without the strict cookie is the form.
        led = request.headers.get("sec-fetch-mode") == "navigate" and not acts
        if not led and not is_our_page(origin, site, host, acts=acts):
            return PlainTextResponse("another site's page has no business here\n", 403)
        return None

    def _without_session(self, request: Request) -> Response | None:
        key = self._key()
        if key is not None and self._sessions.knows(self.token(request), key):
            return None
        if request.url.path == "/":
            return RedirectResponse("/login", 303)
        return JSONResponse({"error": "no session, or one that has ended: enter the key at /login"}, 401)

    def token(self, request: Request) -> str:
        """The session's token that came along."""
        try:
            morsel = SimpleCookie(request.headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            return ""
        return morsel.value if morsel else ""

    def enter(self, client: str, shown: str) -> tuple[str, str]:
        """A session for who shows the key: its token, or what is wrong: ``none``, ``many`` or ``wrong``."""
        key = self._key()
        if key is None:
            return "", "none"
        if not self._attempts.allowed(client):
            return "", "many"
        if not hmac.compare_digest(shown.strip().encode(), key.encode()):
            self._attempts.failed(client)
            return "", "wrong"
        return self._sessions.open(key), ""

    def _sealed(self, response: Response) -> Response:
        response.headers.update(HEADERS)
        response.headers.setdefault("cache-control", "no-store")
        return response
