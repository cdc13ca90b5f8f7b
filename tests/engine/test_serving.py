"""A served model, as its users see it. Real Ray, real vLLM on CPU, two nodes."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import openai
import psutil
import pytest
from tests.engine.cluster import ENDPOINT, Chair, wait_for

from shoal.render.dashboards.boards import ENGINE as BOARD

pytestmark = pytest.mark.engine

# Sockets that Ray and torch open on every address and that cannot be told otherwise. None of them is ours.
UNAVOIDABLE = {
    "raylet": "node manager and object manager of a worker's raylet (Ray binds all but for 127.0.0.1)",
    "ray::RayWorkerProc.run": "a rank's Ray worker port, and torch's TCPStore on rank 0",
    "ray::IDLE": "a prestarted Ray worker of a node that is not 127.0.0.1",
}


def call(path: str, *, method: str = "GET", key: str | None = None, body: Any = None) -> int:
    """The status code of one request."""
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", 18000, timeout=60)) as connection:
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        return connection.getresponse().status


def test_bring_up_ends_with_a_real_answer(served: Chair) -> None:
    """The last event of a bring-up carries the model's own answer and its speed."""
    events = [json.loads(line) for line in (served.state / "events").read_text().splitlines()]
    last = events[-1]
    assert last["event"] == "ready"
    assert "Paris" in last["answer"]
    assert last["tokens"] > 0
    assert last["tokens_per_second"] > 0
    assert [event["status"]["state"] for event in events if event["event"] == "status"][-1] == "ready"


def test_status_tells_nodes_and_engine(served: Chair) -> None:
    """The status document has every part that it promises."""
    status = served.wait_state("ready", 120)
    assert status["schema_version"] == 1
    assert status["cluster"] == "local"
    assert status["endpoint"] == f"{ENDPOINT}/v1"
    assert [(node["name"], node["role"], node["address"], node["state"], node["gpus"]) for node in status["nodes"]] == [
        ("head", "head", "127.0.0.1", "up", 1),
        ("worker-1", "worker", "127.0.0.2", "up", 1),
    ]
    versions = [node["versions"] for node in status["nodes"]]
    assert versions[0] == versions[1]
    assert versions[0]["ray"]
    engine = status["engine"]
    assert (engine["state"], engine["model"], engine["executor"]) == ("ready", "smollm2", "ray")
    assert list(engine["phases"]) == ["gate", "placement", "weights", "warm-up", "first token"]
    assert engine["last_token_age_s"] >= 0


def test_both_nodes_hold_a_rank(served: Chair) -> None:
    """Each raylet has one vLLM rank below it: the model is split over the nodes, not beside them."""
    ranks = []
    for name in ("head", "worker-1"):
        family = psutil.Process(served.pid_of(name)).children(recursive=True)
        ranks.append(sum("RayWorkerProc" in " ".join(process.cmdline()) for process in family))
    assert ranks == [1, 1]


def test_openai_client_gets_an_answer(served: Chair) -> None:
    """The openai package works against the endpoint."""
    with openai.OpenAI(base_url=f"{ENDPOINT}/v1", api_key=served.key()) as client:
        question: Any = [{"role": "user", "content": "What is the capital of France?"}]
        reply = client.chat.completions.create(model="smollm2", messages=question, temperature=0, max_tokens=30)
        assert "Paris" in (reply.choices[0].message.content or "")
        assert [model.id for model in client.models.list()] == ["smollm2"]


def test_openai_client_streams(served: Chair) -> None:
    """A streamed answer comes in pieces and equals the whole one."""
    with openai.OpenAI(base_url=f"{ENDPOINT}/v1", api_key=served.key()) as client:
        question: Any = [{"role": "user", "content": "What is the capital of France?"}]
        words: dict[str, Any] = {"model": "smollm2", "messages": question, "temperature": 0, "max_tokens": 30}
        whole = client.chat.completions.create(**words).choices[0].message.content
        pieces = [part.choices[0].delta.content or "" for part in client.chat.completions.create(**words, stream=True)]
    assert len(pieces) > 3
    assert "".join(pieces) == whole


def test_openai_client_without_the_key_is_refused(served: Chair) -> None:
    """A wrong key is an authentication error for any OpenAI client."""
    with (
        openai.OpenAI(base_url=f"{ENDPOINT}/v1", api_key="wrong") as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()


def test_every_path_but_health_needs_the_key(served: Chair) -> None:
    """Without the key each route that vLLM lists is refused, inference outside /v1 and documentation included."""
    log = (served.folder / "logs" / "vllm.log").read_text()
    routes = {
        (method.strip(), path)
        for line in log.splitlines()
        if "Route: " in line
        for path, methods in [line.split("Route: ")[1].split(", Methods: ")]
        for method in methods.split(",")
    }
    assert ("POST", "/invocations") in routes
    assert ("POST", "/tokenize") in routes
    assert ("POST", "/v1/chat/completions") in routes
    answers = {(method, path): call(path, method=method) for method, path in sorted(routes)}
    assert {route: code for route, code in answers.items() if code != 401} == {("GET", "/health"): 200}


def test_the_key_opens_the_paths(served: Chair) -> None:
    """With the key the same paths answer."""
    body = {"model": "smollm2", "prompt": "hello"}
    assert call("/tokenize", method="POST", key=served.key(), body=body) == 200
    assert call("/metrics", key=served.key()) == 200


def test_the_key_is_in_no_argv_and_no_log(served: Chair) -> None:
    """Neither the API key nor the Ray token is to be seen in a process list, an environment or a log."""
    secrets = [served.key(), (served.folder / "ray.token").read_text().strip()]
    seen = [(path, path.read_text(errors="replace")) for path in (served.folder / "logs").glob("*.log")]
    for process in psutil.process_iter():
        for part in ("cmdline", "environ"):
            path = f"/proc/{process.pid}/{part}"
            try:
                seen.append((Path(path), Path(path).read_text(errors="replace")))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
    assert [path for path, text in seen if any(secret in text for secret in secrets)] == []


def test_secret_files_are_private(served: Chair) -> None:
    """Files with secrets can be read by their owner alone."""
    modes = {name: oct((served.folder / name).stat().st_mode & 0o777) for name in ("api.key", "ray.token", "run.json")}
    assert modes == {"api.key": "0o600", "ray.token": "0o600", "run.json": "0o600"}


def test_ray_refuses_a_driver_without_the_token(served: Chair) -> None:
    """A driver that has no token, or a wrong one, gets no cluster."""
    code = "import ray; ray.init(address='127.0.0.1:28000'); print(ray.nodes())"
    env = {
        **os.environ,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "HOME": str(served.state),
    }
    bare = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert bare.returncode != 0
    assert "NodeID" not in bare.stdout
    wrong = {**env, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    other = subprocess.run(
        [sys.executable, "-c", code], env=wrong, capture_output=True, text=True, timeout=120, check=False
    )
    assert other.returncode != 0
    assert "token" in (other.stdout + other.stderr).lower()


def test_nothing_of_ours_listens_on_all_addresses(served: Chair) -> None:
    """Only Ray's and torch's own sockets are open to all addresses, and each is known by name."""
    record = served.record()
    assert record is not None
    wide, ours = set(), set()
    for proc in record["procs"]:
        top = psutil.Process(proc["pid"])
        for process in [top, *top.children(recursive=True)]:
            for conn in process.net_connections("tcp"):
                if conn.status == psutil.CONN_LISTEN and not conn.laddr.ip.replace("::ffff:", "").startswith("127."):
                    words = " ".join(process.cmdline())
                    (ours if "shoal" in words and "-m shoal" in words else wide).add(name_of(process))
    assert ours == set()
    assert wide - set(UNAVOIDABLE) == set()


def name_of(process: psutil.Process) -> str:
    """``raylet``, ``ray::IDLE``, ... : the program, or the title that it gave itself."""
    first = process.cmdline()[0]
    return first if first.startswith(("ray::", "VLLM::")) else process.name()


def test_a_second_cluster_is_refused(served: Chair) -> None:
    """A second `up` says what runs, and touches nothing."""
    done = served.shoal("up", "--local", "--detach")
    assert done.returncode == 4
    assert "is up already" in done.stderr
    assert "shoal down" in done.stderr
    assert served.status()["state"] == "ready"


def test_what_moves_is_told(served: Chair) -> None:
    """The supervisor's `/live` has rates and quantiles of real answers; vLLM has every metric that is shown of it."""
    served.shoal("ask", "What is the capital of France?")

    supervisor = json.loads((served.folder / "run.json").read_text())["serve_url"]

    def serving() -> dict[str, Any]:
        with urlopen(f"{supervisor}/live", timeout=10) as reply:
            told: dict[str, Any] = json.load(reply)["serving"] or {}
        return told if told.get("ttft_p95_s") and told.get("tokens_per_s") and told.get("itl_p50_s") else {}

    told = wait_for(serving, 30, "no rates in /live")
    assert 0 < told["ttft_p50_s"] <= told["ttft_p95_s"]
    assert 0 <= told["kv_cache_use"] <= 1
    request = Request(f"{ENDPOINT}/metrics", headers={"authorization": f"Bearer {served.key()}"})
    with urlopen(request, timeout=10) as reply:
        text = reply.read().decode()
    shown = {name for panel in BOARD.panels for one in panel.queries for name in re.findall(r"vllm:\w+", one.expr)}
    assert len(shown) > 8
    assert [name for name in sorted(shown) if f"\n{name}{{" not in text] == []


def test_ask_prints_the_answer(served: Chair) -> None:
    """`ask` prints the same answer, streamed or not."""
    whole = served.shoal("ask", "What is the capital of France?")
    stream = served.shoal("ask", "--stream", "What is the capital of France?")
    assert (whole.returncode, stream.returncode) == (0, 0)
    assert "Paris" in whole.stdout
    assert stream.stdout == whole.stdout


def test_logs_name_their_speakers(served: Chair) -> None:
    """`logs` shows what each said, `logs NODE` one of them."""
    everyone = served.shoal("logs").stdout
    assert {line.split(" | ")[0].strip() for line in everyone.splitlines()} == {"head", "worker-1", "engine", "vllm"}
    assert "UP" in served.shoal("logs", "worker-1").stdout
    nobody = served.shoal("logs", "worker-9")
    assert nobody.returncode == 2
    assert "worker-1" in nobody.stderr


def test_a_cluster_on_cpus_has_no_rdma_to_prove(served: Chair) -> None:
    """`prove` says that there is no NCCL here, `status` that nothing leaves the machine, and that is no fault."""
    served.wait_state("ready", 120)
    told = served.shoal("prove")
    assert (told.returncode, told.stdout) == (
        1,
        "not proven: vLLM is a CPU build here: its ranks have no NCCL, and their tensors go over TCP, by Gloo\n",
    )
    transport = wait_for(lambda: served.status()["engine"]["transport"], 60, "no transport in the status")
    assert transport == {"kind": "local", "detail": "all nodes are processes of one machine", "degraded": False}


def test_an_autopsy_shows_every_rank(served: Chair) -> None:
    """The page has a stack of the rank on each node, and ends nothing."""
    served.wait_state("ready", 120)
    page = served.shoal("autopsy").stdout
    ranks = [line for line in page.splitlines() if line.startswith("### ray::RayWorkerProc")]
    assert [line.rpartition(", ")[2] for line in ranks] == ["head)", "worker-1)"]
    assert served.status()["state"] == "ready"


def test_a_frozen_server_is_not_called_ready(served: Chair) -> None:
    """While the API server is stopped `status` is not ready, and it is again when tokens come again."""
    served.wait_state("ready", 120)
    pid = served.status()["engine"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        frozen = served.shoal("status")
        assert frozen.returncode == 1
    finally:
        os.kill(pid, signal.SIGCONT)
    served.wait_state("ready", 120)


def test_a_killed_rank_is_noticed_and_the_engine_comes_back(served: Chair) -> None:
    """After a rank is killed the cluster is not ready until the engine, started again, produces tokens."""
    served.wait_state("ready", 120)
    before = served.status()["engine"]
    family = psutil.Process(served.pid_of("worker-1")).children(recursive=True)
    rank = next(process for process in family if "RayWorkerProc" in " ".join(process.cmdline()))
    rank.kill()
    wait_for(lambda: served.status()["state"] != "ready", 60, "the cluster is not called ready")
    after = served.wait_state("ready", 300)["engine"]
    assert after["pid"] != before["pid"]
    assert after["restarts"] == before["restarts"] + 1
    assert "Paris" in served.shoal("ask", "What is the capital of France?").stdout


def test_a_killed_raylet_takes_the_engine_along_and_both_come_back(served: Chair) -> None:
    """A worker's dead raylet ends the engine at once, also with a request in flight; node and engine come back."""
    served.wait_state("ready", 120)
    before = served.status()
    family = psutil.Process(served.pid_of("worker-1")).children(recursive=True)
    next(process for process in family if process.name() == "raylet").kill()
    wait_for(lambda: served.status()["state"] != "ready", 60, "the cluster is not called ready")
    after = served.wait_state("ready", 240)
    assert after["engine"]["restarts"] == before["engine"]["restarts"] + 1
    assert after["nodes"][1]["ray_node_id"] != before["nodes"][1]["ray_node_id"]
