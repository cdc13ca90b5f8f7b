"""The dashboards against a real Prometheus that scrapes a lab: every query of every panel has an answer.

The lab has neither GPUs nor HCAs. Panels that need one are asked of an agent of a captured machine.
"""

import asyncio
import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
from tests.subnets import free_subnet

from shoal.agent.app import agent_app
from shoal.agent.endpoint import Endpoint, bind
from shoal.agent.live import Live
from shoal.agent.readings import Readings
from shoal.host import capture
from shoal.lab import cluster
from shoal.lab.cluster import Lab
from shoal.lab.plan import Wish
from shoal.ops.dashboards import rules
from shoal.render.dashboards.boards import BOARDS
from shoal.render.dashboards.stack import SCRAPE, Targets, files
from shoal.state.status import NodeState, NodeStatus

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="no Prometheus (apt install prometheus)"),
]
CAPTURED, PROMETHEUS = 18745, 19145
MACHINE = Path(__file__).parents[1] / "machines" / "h100-infiniband"
NODE = NodeStatus(name="captured", role="worker", address="127.0.0.1", state=NodeState.UP, stage="UP", gpus=8)
PATIENCE = 45.0


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab of two, ready."""
    env = {**os.environ, "SHOAL_STATE_DIR": str(tmp_path_factory.mktemp("lab") / "state")}
    try:
        here = cluster.up(Wish(2, "namespace", "sim", subnet=free_subnet(145)), env, lambda _: None)
        cluster.wait_ready(here, 180)
        yield here
    finally:
        cluster.down(env)


@contextmanager
def captured_agent() -> Iterator[None]:
    """The endpoint of an agent on a machine with GPUs and HCAs, as it was captured."""
    machine = capture.load(MACHINE)[0]
    live = Live(lambda: NODE, Readings(lambda _: machine), tuple, tuple)
    begun, over = threading.Event(), threading.Event()

    async def serve() -> None:
        endpoint = Endpoint(agent_app(lambda: NODE, live=live.look), [bind("127.0.0.1", CAPTURED)])
        endpoint.start()
        begun.set()
        while not over.is_set():
            await asyncio.sleep(0.1)
        await endpoint.stop()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert begun.wait(10)
        yield
    finally:
        over.set()
        thread.join(10)


@contextmanager
def prometheus(lab: Lab, folder: Path) -> Iterator[None]:
    """A real one, with the settings that `shoal dashboards` writes; only that it looks every second."""
    head = lab.host("head").address
    agents = (*(f"{host.address}:8700" for host in lab.record.hosts), f"127.0.0.1:{CAPTURED}")
    for name, text in files(Targets(agents, f"{head}:8701", f"{head}:8000"), rules()).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text.replace(f": {SCRAPE}", ": 1s"))
    (folder / "key").mkdir()
    shutil.copy(lab.record.run.api_key_file, folder / "key" / "api.key")
    argv = (
        "prometheus",
        f"--config.file={folder / 'prometheus' / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{PROMETHEUS}",
    )
    with (folder / "prometheus.log").open("wb") as log:
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield
    finally:
        child.terminate()
        child.wait(20)


@contextmanager
def traffic(lab: Lab) -> Iterator[None]:
    """Somebody who asks the engine all the time."""
    key = Path(lab.record.run.api_key_file).read_text().strip()
    body = json.dumps({"model": "simulated", "prompt": "how are you", "max_tokens": 8}).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.2):
            with urlopen(Request(f"{lab.record.run.endpoint}/completions", body, headers), timeout=10) as reply:
                reply.read()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(15)


def told(path: str, **words: str) -> Any:
    """What Prometheus answers."""
    with urlopen(f"http://127.0.0.1:{PROMETHEUS}/api/v1/{path}?{urlencode(words)}", timeout=10) as reply:
        return json.load(reply)["data"]


def asked(expr: str, node: str) -> str:
    """The query as Grafana would send it."""
    return expr.replace("$node", node).replace("$__rate_interval", "10s")


def has_data(query: str) -> bool:
    """Whether an answer is a number. The first second there may be no answer at all."""
    try:
        found = told("query", query=query)["result"]
    except OSError:
        return False
    return any(not math.isnan(float(one["value"][1])) for one in found)


def test_every_query_has_an_answer(lab: Lab, tmp_path: Path) -> None:
    """Those of panels that need hardware from the captured machine, all others from the lab's own nodes."""
    queries = {
        asked(query.expr, "captured" if panel.needs else "n[12]"): f"{board.uid}: {panel.title}"
        for board in BOARDS
        for panel in board.panels
        for query in panel.queries
    }
    with captured_agent(), prometheus(lab, tmp_path), traffic(lab):
        end = time.monotonic() + PATIENCE
        while (empty := {query: title for query, title in queries.items() if not has_data(query)}) and (
            time.monotonic() < end
        ):
            time.sleep(1)
        assert empty == {}
        groups = told("rules")["groups"]
        firing = [one["labels"]["alertname"] for one in told("alerts")["alerts"] if one["state"] == "firing"]
    assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}
    assert firing == []


def test_the_page_about_a_cluster(lab: Lab, tmp_path: Path) -> None:
    """`shoal report`, as in the head's container: each node, the engine, what happened, and none of its keys."""
    run, head = lab.record.run, lab.host("head")
    token = lab.folder / "ray.token"
    env = {
        **os.environ,
        "SHOAL_EXPECT": ",".join(f"{host.address}:1" for host in lab.record.hosts),
        "VLLM_HOST_IP": head.address,
        "RAY_ADDRESS": f"{head.address}:6379",
        "RAY_MODE": "head",
        "MODEL_NAME": "simulated",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "SHOAL_API_KEY_FILE": run.api_key_file,
        "SHOAL_STATE_DIR": str(head.disk / "state"),
    }
    out = tmp_path / "report.html"
    argv = (sys.executable, "-m", "shoal", "report", "-o", str(out))
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    page = out.read_text()
    wanted = ("n1", "n2", "ready", "simulated", "tokens a second", "first token", "is in the cluster with 1 GPU")
    assert [words for words in wanted if words not in page] == []
    secrets = [Path(run.api_key_file).read_text().strip(), token.read_text().strip()]
    assert [one for one in secrets if one in page] == []
