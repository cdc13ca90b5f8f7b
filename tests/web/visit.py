"""A visit to the page, and what the tests of it share."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Request

SHOTS = Path(__file__).resolve().parents[2] / "build" / "web"


@dataclass
class Visit:
    """A page that somebody looks at, and what went wrong in it meanwhile."""

    page: Page
    url: str
    expects_silence: bool = False
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("request", self._asked)

    def _said(self, message: ConsoleMessage) -> None:
        network = "Failed to load resource" in message.text
        if message.type in {"error", "warning"} and not (self.expects_silence and network):
            self.wrong.append(f"{message.type}: {message.text}")

    def _asked(self, request: Request) -> None:
        if urlsplit(request.url).netloc != urlsplit(self.url).netloc:
            self.wrong.append(f"asked elsewhere: {request.url}")

    def enter(self, key: str) -> None:
        """Show the key in the form, by the keyboard alone."""
        self.page.goto(self.url)
        self.page.wait_for_selector("#key:focus")
        self.page.keyboard.type(key)
        self.page.keyboard.press("Enter")
        self.page.wait_for_selector("#live[data-health=good]", timeout=20000)

    def shot(self, name: str) -> None:
        """A picture of the whole page, kept for people."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=str(SHOTS / f"{name}.png"), full_page=True)


def visit(context: BrowserContext, url: str) -> Visit:
    """A new tab at the page's address."""
    return Visit(context.new_page(), url)


def aside(do: Callable[..., Any], *words: Any) -> Any:
    """In a thread of its own: Playwright's loop runs in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(do, *words).result()


def until(true: Callable[[], bool], page: Page, seconds: float = 40.0) -> None:
    """Wait until it is so. Playwright's own way to wait for an expression is eval, which the page's policy forbids."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds:g} s"
        page.wait_for_timeout(200)


def serious(page: Page) -> list[str]:
    """What axe-core finds that keeps somebody from using the page."""
    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run().then((told) => told.violations)")
    return [
        f"{one['id']}: {node['html'][:120]}"
        for one in found
        if one["impact"] in {"serious", "critical"}
        for node in one["nodes"]
    ]


def growing(page: Page) -> set[int]:
    """The lengths that the model's answer had until it was whole."""
    seen = set()
    for _ in range(400):
        seen.add(len(page.inner_text(".talk .model .said")))
        if page.locator(".measured").count():
            break
        page.wait_for_timeout(50)
    return seen
