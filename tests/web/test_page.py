"""The page of a cluster with real Ray: a start, an answer, a node that is lost and comes back.

One cluster serves all tests, in any order: each begins when all is well.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from tests.web.conftest import WISH
from tests.web.visit import Visit, aside, growing, until, visit

from shoal.lab import cluster, faults
from shoal.lab.cluster import Lab

pytestmark = pytest.mark.web


@pytest.fixture
def seen(browser: Browser, lab: Lab) -> Iterator[Visit]:
    """A visitor who has entered and sees that all is well; nothing may go wrong in the page from then on."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    somebody = visit(context, f"http://{lab.host('head').address}:{WISH.agent_port}/")
    until(lambda: aside(answers, lab), somebody.page, 60)
    somebody.enter(Path(lab.record.run.api_key_file).read_text(encoding="utf-8").strip())
    well(somebody.page)
    yield somebody
    context.close()
    assert somebody.wrong == []


def answers(lab: Lab) -> bool:
    """Whether the head's agent answers."""
    return any(node.role == "head" and node.pid for node in cluster.status(lab).nodes)


def well(page: Page) -> None:
    """Wait until the page says that all is well."""
    page.wait_for_selector(".verdict[data-health=good]", timeout=150000)


def health(page: Page, name: str) -> str | None:
    """How the page shows a node."""
    return page.locator(".node", has=page.get_by_role("heading", name=name)).get_attribute("data-health")


def test_a_start_is_shown_by_its_phases(seen: Visit, lab: Lab) -> None:
    """While the engine starts, its phases are there with the seconds of each, and a question cannot be sent."""
    page = seen.page
    aside(faults.strike, lab, faults.FAULTS["kill"], faults.Target(lab.host("head"), "engine"))
    page.wait_for_selector(".phases [aria-current=step]", timeout=40000)
    assert page.is_disabled("#chat button[type=submit]")
    seen.shot("starting")
    well(page)
    assert "Started in" in page.inner_text(".phases-done")
    assert sorted(page.locator(".node h3").all_inner_texts()) == ["n1", "n2"]
    assert "2 nodes: 2 up" in page.inner_text("#cluster .summary")


def test_the_model_answers(seen: Visit) -> None:
    """The answer of the engine comes in pieces, with its speed."""
    seen.page.fill("#question", "What is it like down there?")
    seen.page.keyboard.press("Enter")
    assert len(growing(seen.page)) > 3, "the answer came in one piece"
    assert "tokens/s" in seen.page.inner_text(".measured")
    seen.shot("answered")


def test_a_lost_node_is_shown_and_comes_back(seen: Visit, lab: Lab) -> None:
    """A worker whose power is cut is shown, the sentence names it, and all is well again after its return."""
    page = seen.page
    off = aside(cluster.power_off, lab, lab.host("n2"))
    until(lambda: health(page, "n2") in {"warn", "bad"}, page)
    until(lambda: "Node n2 is lost" in page.inner_text(".verdict .words"), page)
    assert health(page, "n1") == "good"
    assert page.inner_text(".verdict .fix code") == "shoal logs n2"
    seen.shot("lost")
    aside(cluster.boot, off, off.host("n2"))
    until(lambda: health(page, "n2") == "good", page, 120)
    well(page)
