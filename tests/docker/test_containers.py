"""Two deployment folders, used as their READMEs say, on two machines: real Docker, real Ray, real vLLM on CPU."""

import json
import re
from typing import Any

import pytest
from tests.docker.conftest import ENGINE, HEAD, HUB_NAME, RAY_TOKEN, WORKER, Pair
from tests.docker.deployment import Deployment, ask, document, wait_status
from tests.docker.machine import until

from shoal.ops import pyz

pytestmark = pytest.mark.docker
AGENT = f"http://{WORKER}:8700/status"
API = f"http://{HEAD}:8000"
WROKER = "Input should be 'head' or 'worker'; expected `head` or `worker`; did you mean \"worker\"?"
QUESTION = {
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "max_tokens": 30,
    "temperature": 0,
}
STORY = re.compile(r"^\d\d:\d\d:\d\d (\w+) +(.*)$")


def told(log: str) -> list[tuple[str, str]]:
    """Stage and words of each line of a story; a line of another form has none."""
    return [(found[1], found[2]) if (found := STORY.match(line)) else ("", line) for line in log.splitlines()]


def in_order(stages: list[str], wanted: list[str]) -> bool:
    """Whether the wanted stages come one after another, whatever stands between."""
    rest = iter(stages)
    return all(stage in rest for stage in wanted)


def served(pair: Pair) -> str:
    """The model's name, as the API tells it."""
    return str(json.loads(ask(pair.worker.machine, f"{API}/v1/models", key=pair.key)[1])["data"][0]["id"])


def answer(pair: Pair) -> str:
    """What the model says to the question, asked from the other machine."""
    question = QUESTION | {"model": served(pair)}
    status, body = ask(pair.worker.machine, f"{API}/v1/chat/completions", question, pair.key)
    assert status == 200, body
    return str(json.loads(body)["choices"][0]["message"]["content"])


def test_two_folders_end_in_a_chat_answer(pair: Pair) -> None:
    """Rendered, `.env` filled in, `docker-compose up -d`: the model answers over both machines, and wants the key."""
    assert "Paris" in answer(pair)
    assert ask(pair.head.machine, f"{API}/v1/models")[0] == 401
    now = document(pair.worker.machine, AGENT)
    assert (now["name"], now["address"], now["state"], now["gpus"]) == ("box2", WORKER, "up", 1)


def test_vllm_finds_its_platform_in_the_pyz(pair: Pair) -> None:
    """The image holds no shoal: vLLM's CPU platform for Ray comes out of the one file that is mounted."""
    program = (
        "import importlib.metadata as m; e, = m.entry_points(group='vllm.platform_plugins'); "
        "print(e.value, e.load().__module__, __import__('shoal').__file__)"
    )
    argv = ("docker", "exec", "-e", "PYTHONPATH=/opt/shoal/shoal.pyz", "vllm", "python3", "-c", program)
    words = pair.head.machine.ok(*argv).split()
    assert words == ["shoal.vllm_cpu:register", "shoal.vllm_cpu", "/opt/shoal/shoal.pyz/shoal/__init__.py"]
    assert (pair.head.folder / "shoal.pyz").read_bytes() == pyz.build()


def test_docker_calls_all_three_healthy(pair: Pair) -> None:
    """The health checks of the compose files find the programs."""
    wanted = [(pair.head, "ray-head"), (pair.head, "vllm"), (pair.worker, "ray-worker")]
    for folder, name in wanted:
        until(
            lambda folder=folder, name=name: folder.machine.inspect(name)["State"]["Health"]["Status"] == "healthy",
            30,
            lambda folder=folder, name=name: str(folder.machine.inspect(name)["State"]),
        )


def test_the_logs_are_a_story(pair: Pair) -> None:
    """Each line has a time, a stage and a sentence; the stages come in order, and nothing else is printed."""
    worker, head, engine = (
        told(folder.machine.logs(name))
        for folder, name in ((pair.worker, "ray-worker"), (pair.head, "ray-head"), (pair.head, "vllm"))
    )
    assert [line for stage, line in (*worker, *head, *engine) if not stage] == []
    assert in_order([stage for stage, _ in worker], ["BANNER", "PREFLIGHT", "WAIT_HEAD", "JOIN", "VERIFY", "UP"])
    assert in_order([stage for stage, _ in head], ["BANNER", "PREFLIGHT", "JOIN", "VERIFY", "UP"])
    assert in_order([stage for stage, _ in engine], ["MODEL", "GATE", "LAUNCH", "STARTING", "READY"])
    said = {line for _, line in worker}
    assert {
        f"VLLM_HOST_IP={WORKER} (set)",
        "SHOAL_LOST_AFTER=30 (set, the default)",
        f"NCCL_SOCKET_IFNAME: =fab0 (chosen: this interface has {WORKER})",
        "no GPU: nvidia-smi is not installed",
        "no RDMA device in /sys/class/infiniband",
        "RAY_AUTH_TOKEN_PATH=/var/lib/shoal/ray.token (set)",
    } <= said
    assert RAY_TOKEN not in str((worker, head, engine))


def test_a_stopped_worker_drains_and_leaves_and_comes_back(pair: Pair) -> None:
    """`stop`: the node drains, leaves and ends with 0, and the engine says who is missing. `start`: all comes back."""
    machine, before = pair.worker.machine, len(pair.worker.machine.logs("ray-worker"))
    pair.worker.compose("stop")
    state = machine.inspect("ray-worker")["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 0)
    left = [stage for stage, _ in told(machine.logs("ray-worker")[before:])]
    assert in_order(left, ["DRAIN", "STOPPED"])
    until(
        lambda: document(pair.head.machine, ENGINE).get("state") != "ready",
        60,
        lambda: f"the engine is not ready: {document(pair.head.machine, ENGINE)}",
    )
    pair.worker.compose("start")
    wait_status(machine, AGENT, "up", 90)
    pair.wait_ready()
    assert "Paris" in answer(pair)


def test_docker_restarts_a_worker_whose_first_process_was_killed(started: Pair) -> None:
    """Killed from outside, the container is started again by its policy, and the node joins again."""
    machine = started.worker.machine
    wait_status(machine, AGENT, "up", 90)
    before = machine.inspect("ray-worker")
    machine.ok("kill", "-KILL", str(before["State"]["Pid"]))
    until(
        lambda: machine.inspect("ray-worker")["RestartCount"] == before["RestartCount"] + 1,
        30,
        lambda: str(machine.inspect("ray-worker")["State"]),
    )
    wait_status(machine, AGENT, "up", 90)


def test_a_key_of_the_registry_serves_a_model_of_the_hub(started: Pair) -> None:
    """Another MODEL_NAME and `up -d`: the head begins anew, the worker joins it again, and the model answers."""
    pair, head = started, started.head
    (head.folder / "models.yaml").write_text(f"small:\n  model: {HUB_NAME}\n  max-model-len: 1024\n")
    head.fill(pair.settings | {"MODEL_NAME": "small", "HF_HUB_OFFLINE": "1"})
    head.compose("up", "-d")
    wait_status(head.machine, ENGINE, "waiting", 60)
    pair.wait_ready()
    assert (served(pair), "Paris" in answer(pair)) == ("small", True)
    assert f"small: {HUB_NAME}" in head.machine.logs("vllm")


def test_malformed_settings_turn_unhealthy_and_end_with_78(started: Pair, malformed: Deployment) -> None:
    """`RAY_MODE=wroker`: one line, unhealthy within its minute, exit code 78, and a restart only after that minute."""
    name = "ray-wroker"
    machine = malformed.machine
    assert f"RAY_MODE='wroker': {WROKER}" in machine.wait_log(name, "CONFIG", 30)
    until(lambda: "die" in actions(malformed, name), 100, lambda: str(machine.inspect(name)["State"]))
    seen = events(malformed, name)
    names = actions(malformed, name)
    died = seen[names.index("die")]
    assert "health_status: unhealthy" in names[: names.index("die")]
    assert died["Actor"]["Attributes"]["exitCode"] == "78"
    assert died["time"] - seen[names.index("start")]["time"] >= 60
    until(lambda: machine.inspect(name)["RestartCount"] > 0, 10, lambda: str(machine.inspect(name)["State"]))


def events(folder: Deployment, container: str) -> list[dict[str, Any]]:
    """What Docker says happened to a container, in order."""
    span = ("--since", "30m", "--until", "0s", "--filter", f"container={container}")
    told = folder.machine.ok("docker", "events", *span, "--format", "{{json .}}")
    return [json.loads(line) for line in told.splitlines()]


def actions(folder: Deployment, container: str) -> list[str]:
    """The names of these events."""
    return [event["Action"] for event in events(folder, container)]
