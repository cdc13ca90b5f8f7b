"""Headless Chromium, and two clusters for its page: one that is made up, and one with real Ray."""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from shoal.lab import cluster
from shoal.lab.cluster import Lab
from shoal.lab.plan import Wish

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
SETTINGS = {"SHOAL_LOST_AFTER": "12"}
WISH = Wish(2, "loopback", "sim", port_base=31400, api_port=18144, agent_port=18740, settings=SETTINGS)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's program."""
    found = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("there is no Chromium")
    return found


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    """One browser for all."""
    with sync_playwright() as play:
        # The tests run as root in containers, where Chromium's own sandbox cannot be made.
        started = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def env(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of the one cluster with real Ray; the page's visitors wait until it is ready."""
    found = {**os.environ, "SHOAL_STATE_DIR": str(tmp_path_factory.mktemp("web") / "state")}
    try:
        cluster.up(WISH, found, lambda _: None)
        yield found
    finally:
        cluster.down(found)


@pytest.fixture
def lab(env: dict[str, str]) -> Lab:
    """The cluster as it is recorded now."""
    return cluster.current(env)
