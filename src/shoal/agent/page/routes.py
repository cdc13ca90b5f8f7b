"""The page's addresses on the head's agent: ``/``, ``/login``, ``/logout``, ``/assets/*``, ``/api/*``."""

import hashlib
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from urllib.parse import parse_qs

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from shoal.agent.page.ask import Asker
from shoal.agent.page.chat import Chat, Question
from shoal.agent.page.door import Door
from shoal.agent.page.sessions import LIFETIME, Sessions
from shoal.agent.page.watch import Watch
from shoal.agent.talk import Board, body_of
from shoal.host.base import Host
from shoal.spec.env import AgentSettings
from shoal.state.status import NodeStatus

KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# What the form of the key looks like; all else is for those who have a session.
FOR_ALL = frozenset({"page.css", "icon.svg"})
LONGEST_FORM = 4096
PROBLEM = "<!--problem-->"
PROBLEMS = {
    "wrong": "This is not the key.",
    "many": "Too many wrong keys: wait a minute.",
    "none": "This agent has no API key yet: start the engine's supervisor, or set SHOAL_API_KEY_FILE.",
}


@cache
def assets() -> dict[str, bytes]:
    """The files that a browser gets, by name; out of ``shoal.pyz`` as well as out of a folder."""
    folder = files("shoal.agent.page") / "assets"
    return {item.name: item.read_bytes() for item in folder.iterdir() if item.name.endswith(tuple(KINDS))}


def asset(request: Request, name: str, status: int = 200) -> Response:
    """One file; a browser that has it already is told so."""
    content = assets().get(name)
    if content is None:
        return JSONResponse({"error": "there is no such file"}, 404)
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = {"etag": tag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, status, headers, media_type=KINDS["." + name.rpartition(".")[2]])


class Page:
    """The page of one cluster, on its head."""

    def __init__(
        self,
        host: Host,
        settings: AgentSettings,
        own: Callable[[], NodeStatus],
        board: Board,
        key: Callable[[], str | None],
    ) -> None:
        self._host = host
        self._settings = settings
        folder = Path(settings.state_dir or settings.temp_dir)
        sessions = Sessions(host, folder / "page-sessions.json")
        self._sessions = sessions
        self._door = Door(settings.address, settings.agent_port, self.api_key, sessions)
        self._asker = Asker(settings, own, board.view, key, folder)
        self._watch = Watch(self._asker.look)
        self._chat = Chat()

    def api_key(self) -> str | None:
        """The API key, read anew each time: the supervisor makes it at its first start."""
        if not self._settings.api_key_file:
            return None
        return (self._host.read(self._settings.api_key_file) or "").strip() or None

    async def close(self) -> None:
        """Send all viewers home."""
        await self._watch.close()

    def routes(self) -> tuple[Route, ...]:
        """All of it; nothing acts but a login, a logout and a question to the model."""
        public, private = self._door.public, self._door.private
        return (
            Route("/", private(self._index)),
            Route("/login", public(self._form), methods=["GET"]),
            Route("/login", public(self._login), methods=["POST"]),
            Route("/logout", private(self._logout), methods=["POST"]),
            *(Route(f"/assets/{name}", public(self._asset)) for name in sorted(FOR_ALL)),
            Route("/assets/{name}", private(self._asset)),
            Route("/api/live", private(self._live)),
            Route("/api/session", private(self._session)),
            Route("/api/stream", private(self._stream)),
            Route("/api/chat", private(self._ask), methods=["POST"]),
        )

    async def _index(self, request: Request) -> Response:
        return asset(request, "index.html")

    async def _asset(self, request: Request) -> Response:
        return asset(request, request.url.path.rpartition("/")[2])

    async def _form(self, request: Request) -> Response:
        """The form, with what was wrong the last time in words of our own."""
        problem = PROBLEMS.get(request.query_params.get("problem", ""), "")
        content = assets()["login.html"].replace(PROBLEM.encode(), problem.encode())
        return Response(content, media_type=KINDS[".html"])

    async def _login(self, request: Request) -> Response:
        form = parse_qs((await body_of(request, LONGEST_FORM)).decode(errors="replace"))
        client = request.client.host if request.client else ""
        token, problem = self._door.enter(client, form.get("key", [""])[0])
        if problem:
            return RedirectResponse(f"/login?problem={problem}", 303)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self._door.cookie, token, max_age=int(LIFETIME), httponly=True, samesite="strict")
        return answer

    async def _logout(self, request: Request) -> Response:
        self._sessions.close(self._door.token(request))
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(self._door.cookie, httponly=True, samesite="strict")
        return answer

    async def _session(self, _: Request) -> Response:
        return JSONResponse({"session": True})

    async def _live(self, _: Request) -> Response:
        return Response((await self._watch.view()).model_dump_json(), media_type="application/json")

    async def _stream(self, _: Request) -> Response:
        if self._watch.full:
            return JSONResponse({"error": "too many are watching"}, 503)
        return StreamingResponse(self._watch.follow(), media_type="text/event-stream")

    async def _ask(self, request: Request) -> Response:
        try:
            question = Question.model_validate_json(await body_of(request))
        except ValidationError:
            return JSONResponse({"error": "expected messages: a list of role and content"}, 400)
        engine = await self._asker.engine()
        if engine is None or not engine.endpoint:
            return JSONResponse({"error": "the engine's supervisor does not answer, or has no model yet"}, 503)
        return await self._chat.answer(engine.endpoint, question, engine.engine.model, self.api_key())
