"""Who may see the status page: names, origins, the key, sessions."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from shoal.agent.page import door, routes, sessions
from shoal.agent.page.door import Attempts, is_our_name, is_our_page
from shoal.agent.page.routes import FOR_ALL, Page, assets
from shoal.agent.page.sessions import LIFETIME, MOST, Sessions
from shoal.agent.talk import Board
from shoal.host.local import LocalHost
from shoal.spec.env import agent_settings
from shoal.state.status import NodeState, NodeStatus

KEY = "k" * 43
ADDRESS = "192.168.144.1"
OURS = f"http://{ADDRESS}:8700"
OWN = NodeStatus(name="n1", role="head", address=ADDRESS, state=NodeState.UP)


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def page(folder: Path, key: str | None = KEY) -> Page:
    """The page of a head whose key file holds that."""
    if key is not None:
        (folder / "api.key").write_text(key + "\n")
    env = {"RAY_MODE": "head", "VLLM_HOST_IP": ADDRESS, "SHOAL_STATE_DIR": str(folder)}
    settings = agent_settings({**env, "SHOAL_API_KEY_FILE": str(folder / "api.key")})
    return Page(LocalHost(), settings, lambda: OWN, Board(30.0), lambda: None)


def browser(folder: Path, key: str | None = KEY) -> TestClient:
    """A browser at the page's address, before it has shown the key."""
    app = Starlette(routes=page(folder, key).routes())
    return TestClient(app, base_url=OURS, headers={"origin": OURS}, follow_redirects=False)


def entered(folder: Path) -> TestClient:
    """A browser that has shown the key."""
    client = browser(folder)
    client.post("/login", data={"key": KEY})
    return client


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("localhost:8700", True),
        ("LocalHost", True),
        ("127.0.0.1:8700", True),
        ("127.0.0.2", True),
        ("[::1]:8700", True),
        ("192.168.144.1:8700", True),
        ("192.168.144.1:9999", True),  # a tunnel has a port of its own
        ("192.168.144.2:8700", False),
        ("evil.example:8700", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost:8700@evil.example", False),
        ("localhost, evil.example", False),
        ("", False),
        (None, False),
    ],
)
def test_only_our_own_names_are_answered(host: str | None, ours: bool) -> None:
    """Loopback and the node's address are ours; a name that somebody's DNS turned to them is not."""
    assert is_our_name(host, ADDRESS) is ours


@pytest.mark.parametrize(
    ("origin", "site", "acts", "ours"),
    [
        (None, None, False, True),
        (None, None, True, False),
        (OURS, None, True, True),
        (OURS, "same-origin", True, True),
        (OURS, "same-site", True, False),
        (OURS, "cross-site", False, False),
        (None, "none", False, True),
        ("null", None, True, False),
        ("http://192.168.144.1:8000", None, False, False),
        ("http://evil.example", None, False, False),
    ],
)
def test_what_acts_comes_from_a_page_of_ours(origin: str | None, site: str | None, acts: bool, ours: bool) -> None:
    """Another site, another port and an origin that is not told are refused."""
    assert is_our_page(origin, site, f"{ADDRESS}:8700", acts=acts) is ours


def test_without_a_session_there_is_the_form_alone(tmp_path: Path) -> None:
    """Every address but the form, its style and its icon wants a session; the page itself leads to the form."""
    client = browser(tmp_path)
    gets = ["/", "/login", "/api/live", "/api/stream", "/api/session", *(f"/assets/{name}" for name in assets())]
    told = {path: client.get(path).status_code for path in gets}
    open_ones = {"/login", *(f"/assets/{name}" for name in FOR_ALL)}
    assert told == {path: 200 if path in open_ones else 303 if path == "/" else 401 for path in gets}
    assert client.get("/").headers["location"] == "/login"
    assert [client.post(path).status_code for path in ("/api/chat", "/logout")] == [401, 401]


def test_every_answer_has_the_headers(tmp_path: Path) -> None:
    """No script but ours, no frame around us, no guessing of types: said with refusals as well."""
    client = entered(tmp_path)
    answers = [
        client.get("/"),
        client.get("/assets/main.js"),
        client.get("/assets/none.js"),
        client.get("/login", headers={"host": "evil.example"}),
        browser(tmp_path).get("/api/live"),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 404, 421, 401]
    for answer in answers:
        assert {name: answer.headers[name] for name in door.HEADERS} == door.HEADERS
    assert "unsafe" not in door.CSP
    assert "default-src 'none'" in door.CSP


def test_the_key_opens_a_session(tmp_path: Path) -> None:
    """The cookie holds a token and not the key, is strict and out of reach of scripts; the logout ends it."""
    client = browser(tmp_path)
    answer = client.post("/login", data={"key": f" {KEY} "})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert KEY not in cookie
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert cookie.startswith("shoal-8700=")
    assert client.get("/").status_code == 200
    token = client.cookies["shoal-8700"]
    assert client.post("/logout").headers["location"] == "/login"
    client.cookies.set("shoal-8700", token)
    assert client.get("/api/session").status_code == 401


def test_a_wrong_key_opens_nothing(tmp_path: Path) -> None:
    """The form says what is wrong in words of ours; after a few tries nothing is compared any more."""
    client = browser(tmp_path)
    told = [client.post("/login", data={"key": "wrong"}).headers["location"] for _ in range(9)]
    assert told == ["/login?problem=wrong"] * 8 + ["/login?problem=many"]
    assert client.post("/login", data={"key": KEY}).headers["location"] == "/login?problem=many"
    assert "Too many wrong keys" in client.get("/login?problem=many").text
    assert "script" not in client.get("/login?problem=%3Cscript%3E").text
    assert not client.cookies


def test_without_a_key_file_nobody_comes_in(tmp_path: Path) -> None:
    """A key that is not there, or empty, equals no key that is shown."""
    assert browser(tmp_path, key=None).post("/login", data={"key": ""}).headers["location"] == "/login?problem=none"
    assert browser(tmp_path, key="").post("/login", data={"key": ""}).headers["location"] == "/login?problem=none"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", ""])
def test_another_site_cannot_log_in_or_ask(tmp_path: Path, origin: str) -> None:
    """A form on another site is refused, and so is a question with a stolen ride on the session."""
    client = entered(tmp_path)
    headers = {"origin": origin}
    told = [client.post(path, headers=headers).status_code for path in ("/login", "/logout", "/api/chat")]
    assert told == [403, 403, 403]


def test_a_link_on_another_site_may_lead_here(tmp_path: Path) -> None:
    """A navigation from elsewhere is answered: without the strict cookie it ends at the form."""
    client = browser(tmp_path)
    led = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "origin": ""}
    assert client.get("/", headers=led).status_code == 303
    assert client.get("/api/live", headers={"sec-fetch-site": "cross-site"}).status_code == 403


def test_a_question_must_be_one(tmp_path: Path) -> None:
    """What the page would never send is refused before anybody else is asked: the model, other roles, no words."""
    client = entered(tmp_path)
    bad = [
        {},
        {"messages": []},
        {"messages": [{"role": "system", "content": "x"}]},
        {"messages": [{"role": "user", "content": ""}]},
        {"messages": [{"role": "user", "content": "x"}], "model": "other"},
        {"messages": [{"role": "user", "content": "x" * 70_000}]},
    ]
    assert [client.post("/api/chat", json=body).status_code for body in bad] == [400] * len(bad)


@dataclass
class Disk:
    """A host that keeps files in memory, and can be full."""

    files: dict[str, str] = field(default_factory=dict)

    def read(self, path: str) -> str | None:
        return self.files.get(path)

    def write(self, path: str, content: str, *, mode: int) -> None:
        assert mode == 0o600
        self.files[path] = content


def opened(disk: Disk, clock: Callable[[], float]) -> Sessions:
    """The sessions that lie on a disk."""
    return Sessions(disk, Path("/s"), clock)  # type: ignore[arg-type]


def test_sessions_outlive_the_agent_and_not_the_key() -> None:
    """After a restart the token is still known; with another key, or hours later, it is not."""
    disk, clock = Disk(), Clock()
    token = opened(disk, clock).open(KEY)
    again = opened(disk, clock)
    assert [again.knows(token, KEY), again.knows(token, "other"), again.knows("", KEY), again.knows("x", KEY)] == [
        True, False, False, False,
    ]  # fmt: skip
    clock.now += LIFETIME
    assert not again.knows(token, KEY)


def test_what_is_kept_opens_nothing() -> None:
    """The file has digests: neither a token nor the key can be read from it."""
    disk = Disk()
    token = opened(disk, Clock()).open(KEY)
    text = disk.files["/s"]
    assert token not in text
    assert KEY not in text
    assert len(json.loads(text)["sessions"]) == 1


def test_sessions_are_bounded() -> None:
    """The oldest make room."""
    clock = Clock()
    kept = opened(Disk(), clock)
    tokens = []
    for _ in range(MOST + 2):
        clock.now += 1
        tokens.append(kept.open(KEY))
    assert [kept.knows(token, KEY) for token in tokens] == [False, False] + [True] * MOST


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": 1}', '{"key": "", "sessions": []}'])
def test_a_damaged_file_is_no_session(text: str) -> None:
    """What cannot be read counts as nothing, and is written anew."""
    disk = Disk({"/s": text})
    assert not opened(disk, Clock()).knows("", KEY)
    assert opened(disk, Clock()).open(KEY)


def test_attempts_are_forgotten_after_a_minute() -> None:
    """One address has a few tries in a minute; all together have some more."""
    clock = Clock()
    attempts = Attempts(clock)
    for _ in range(door.MOST_OF_ONE):
        attempts.failed("a")
    assert (attempts.allowed("a"), attempts.allowed("b")) == (False, True)
    for number in range(door.MOST_OF_ALL):
        attempts.failed(str(number))
    assert not attempts.allowed("fresh")
    clock.now += door.WINDOW
    assert attempts.allowed("a")


def test_the_files_load_nothing_from_elsewhere() -> None:
    """No file names another origin, has a script or a style in its markup, or makes markup out of text."""
    told = {name: content.decode() for name, content in assets().items()}
    assert {"index.html", "login.html", "main.js", "page.css"} <= set(told)
    for name, text in told.items():
        clean = text.replace("http://www.w3.org/2000/svg", "")
        found = [
            word
            for word in ("http://", "https://", "innerHTML", "outerHTML", "style=", "onclick", "eval(")
            if word in clean
        ]
        assert (name, found) == (name, [])
    assert sum(len(content) for content in assets().values()) < 100_000
    assert routes.KINDS.keys() >= {"." + name.rpartition(".")[2] for name in told}
    assert sessions.LIFETIME == LIFETIME
