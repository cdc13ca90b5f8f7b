"""The page of a cluster that is made up: every size, every colour, the keyboard, markup in every text, many nodes."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, Page
from tests.web.made_up import EVIL, KEY
from tests.web.visit import Visit, growing, serious, until, visit

pytestmark = pytest.mark.web
ROOT = Path(__file__).resolve().parents[2]
FEW, ONE, MANY = 18748, 18758, 18768  # a port for each cluster, and the next one for its engine
SIZES = [(390, "light"), (390, "dark"), (1440, "light"), (1440, "dark")]


@contextmanager
def running(folder: Path, port: int, nodes: int) -> Iterator["subprocess.Popen[bytes]"]:
    """The cluster, once it answers."""
    program = (sys.executable, "-m", "tests.web.made_up", str(folder), str(port), str(nodes))
    child = subprocess.Popen(program, cwd=ROOT, stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while not answers(port):
            assert time.monotonic() < end, "it does not answer"
            time.sleep(0.2)
        yield child
    finally:
        child.kill()
        child.wait(10)


def answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as reply:
            return bool(reply.status == 200)
    except (URLError, OSError):
        return False


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Five nodes."""
    folder = tmp_path_factory.mktemp("few")
    with running(folder, FEW, 5):
        yield folder


@contextmanager
def visitor(browser: Browser, width: int = 1440, scheme: Any = "light", port: int = FEW) -> Iterator[Visit]:
    """Somebody with a window of that size; nothing may go wrong in it."""
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    somebody = visit(context, f"http://127.0.0.1:{port}/")
    yield somebody
    context.close()
    assert somebody.wrong == []


def no_hit(page: Page) -> bool:
    """Whether nothing that was printed has become markup."""
    markup = page.locator("main script, main img, a[href^=javascript]").count()
    return page.evaluate("window.hit === undefined") and markup == 0


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(("width", "scheme"), SIZES, ids=str)
def test_every_size_and_colour_is_readable(browser: Browser, width: int, scheme: str) -> None:
    """axe-core finds nothing serious in form and page, and nothing is wider than the window."""
    with visitor(browser, width, scheme) as seen:
        seen.page.goto(seen.url)
        assert serious(seen.page) == []
        seen.enter(KEY)
        seen.page.wait_for_timeout(2500)
        seen.shot(f"made-up-{width}-{scheme}")
        assert serious(seen.page) == []
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.usefixtures("few")
def test_the_rails_carry_what_the_counters_say(browser: Browser) -> None:
    """Each port has its Gb/s, made of two readings; one that is down says so; errors that grow are told."""
    with visitor(browser) as seen:
        seen.enter(KEY)
        ports = seen.page.locator(".node", has=seen.page.get_by_role("heading", name="n2")).locator(".ports li")
        until(lambda: "in 40.0, out 20.0 Gb/s" in ports.nth(0).inner_text(), seen.page)
        assert "DOWN" in ports.nth(1).inner_text()
        assert [ports.nth(at).get_attribute("data-health") for at in (0, 1)] == ["good", "bad"]
        until(lambda: "out_of_sequence: +" in seen.page.inner_text("#errors"), seen.page)
        assert "ip link set eth0 mtu 9000" in seen.page.inner_text("#findings")


@pytest.mark.usefixtures("few")
def test_nothing_that_is_printed_becomes_markup(browser: Browser) -> None:
    """A script in a node's name, a finding, a journal, a question and the model's answer stays text."""
    with visitor(browser) as seen:
        page = seen.page
        seen.enter(KEY)
        until(lambda: EVIL in (page.text_content(".journal") or ""), page)
        until(lambda: EVIL in (page.text_content("#cluster") or ""), page)
        assert EVIL in (page.text_content("#findings") or "")
        page.fill("#question", EVIL)
        page.keyboard.press("Enter")
        page.wait_for_selector(".measured")
        assert page.text_content(".talk .user .said") == EVIL
        assert page.text_content(".talk .model .said") == f"Hello there: {EVIL}"
        assert no_hit(page)


@pytest.mark.usefixtures("few")
def test_the_keyboard_is_enough(browser: Browser) -> None:
    """Tab leads past everything that can be pressed to the question, each with a visible focus; the answer streams."""
    with visitor(browser) as seen:
        page, reached = seen.page, []
        seen.enter(KEY)
        while "question" not in reached and len(reached) < 60:
            page.keyboard.press("Tab")
            who = page.evaluate("document.activeElement.id || document.activeElement.textContent.trim().slice(0, 20)")
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none", who
            reached.append(who)
        assert (reached[:2], reached[-1]) == (["Skip to the content", "Log out"], "question")
        page.keyboard.type("What is it like down there?")
        page.keyboard.press("Enter")
        assert len(growing(page)) >= 3, "the answer came in one piece"
        assert "3 tokens in" in page.inner_text(".measured")


def test_a_head_that_is_away_makes_the_page_stale_for_a_while(browser: Browser, tmp_path: Path) -> None:
    """While the agent is silent or gone the page says since when; then it goes on, with the same session."""
    with visitor(browser, port=ONE) as seen:
        seen.expects_silence = True
        with running(tmp_path, ONE, 2) as child:
            seen.enter(KEY)
            child.send_signal(signal.SIGSTOP)
            seen.page.wait_for_selector("body[data-stale=true]", timeout=20000)
            assert "stale since" in seen.page.inner_text("#live")
            assert "The head's agent does not answer" in seen.page.inner_text("#verdict")
            seen.shot("made-up-stale")
            child.send_signal(signal.SIGCONT)
            seen.page.wait_for_selector("body[data-stale=false]", timeout=20000)
        seen.page.wait_for_selector("body[data-stale=true]", timeout=20000)
        with running(tmp_path, ONE, 2):
            seen.page.wait_for_selector("body[data-stale=false]", timeout=30000)
            assert seen.page.url == seen.url


@pytest.mark.usefixtures("few")
def test_the_logout_ends_it(browser: Browser) -> None:
    """After the logout the form is there again, and the old cookie opens nothing."""
    with visitor(browser) as seen:
        seen.enter(KEY)
        cookies = seen.page.context.cookies()
        assert [(one["httpOnly"], one["sameSite"]) for one in cookies] == [(True, "Strict")]
        seen.page.click("text=Log out")
        seen.page.wait_for_selector("#key")
        seen.page.context.add_cookies(cookies)
        seen.page.goto(seen.url)
        assert seen.page.url == f"{seen.url}login"


def test_many_nodes_are_tiles(browser: Browser, tmp_path: Path) -> None:
    """With 128 nodes each is a tile with shape and word; one that needs a look is shown in full, and any at a key."""
    with running(tmp_path, MANY, 128), visitor(browser, port=MANY) as seen:
        page = seen.page
        seen.enter(KEY)
        page.wait_for_selector(".many li:nth-child(128) button", timeout=30000)
        rows = page.locator(".node h3")
        until(lambda: "n5" in rows.all_inner_texts(), page)
        page.locator(".many button", has_text="n77").focus()
        page.keyboard.press("Enter")
        until(lambda: "n77" in rows.all_inner_texts(), page)
        seen.shot("made-up-128")
        assert serious(page) == []
        assert no_hit(page)
