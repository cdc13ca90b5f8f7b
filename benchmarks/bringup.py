"""Bring-up through shoal, and by hand with perfect timing, in turns. Also `--help` and the agents at rest.

    python -m benchmarks.bringup [--rounds 5] [--out benchmarks/results/bringup.json]

*By hand* is what an expert with a stopwatch would do: start Ray's head, start the worker at the moment the GCS listens,
start the same vLLM with the same arguments at the moment the worker's node is registered, ask for a token at the moment
the server answers. Both columns end with the first token of the same model over the same two nodes. The by-hand column
has no gate, no verification and nobody watching.
"""

import argparse
import http.client
import json
import os
import platform
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil

from shoal.agent.ray_command import start_argv, start_env
from shoal.engine.launch import argv as engine_argv
from shoal.engine.launch import environment, read_request
from shoal.facts.versions import versions
from shoal.ops import sweep
from shoal.plan.local import LocalSpec, plan_local
from shoal.plan.parallel import on_cpu
from shoal.spec.env import agent_settings
from shoal.spec.environ import cache_dir, environ
from shoal.spec.registry import builtin

BIN = Path(sys.executable).parent
PORT = 8000
POLL = 0.02


def wait_for(what: Callable[[], bool], seconds: float) -> None:
    """Wait until it is so; RuntimeError after ``seconds``."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise RuntimeError(f"not within {seconds:g} s")
        time.sleep(POLL)


def listening(address: str, port: int) -> bool:
    """Whether somebody listens there."""
    with closing(socket.socket()) as probe:
        return probe.connect_ex((address, port)) == 0


def token(key: str) -> bool:
    """Whether the server on :data:`PORT` produces one token."""
    body = json.dumps({"model": "smollm2", "prompt": "1", "max_tokens": 1, "temperature": 0})
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", PORT, timeout=120)) as connection:
            connection.request("POST", "/v1/completions", body, headers)
            return connection.getresponse().status == 200
    except OSError:
        return False


def through_shoal(state: Path) -> dict[str, Any]:
    """Seconds of `shoal up --local --detach` to its first token (before the question it asks), and its phases."""
    env = {**environ(), "SHOAL_STATE_DIR": str(state)}
    began = time.monotonic()
    process = subprocess.Popen(
        [str(BIN / "shoal"), "up", "--local", "--detach", "--json"], env=env, stdout=subprocess.PIPE, text=True
    )
    seconds, phases = 0.0, {}
    for line in process.stdout or ():
        event = json.loads(line)
        if event["event"] == "status" and event["status"]["state"] == "ready":
            seconds, phases = time.monotonic() - began, event["status"]["engine"]["phases"]
    if process.wait() != 0 or not seconds:
        raise RuntimeError("shoal up failed")
    return {"seconds": seconds, "phases": phases}


def by_hand(model: Path, arguments: Sequence[str], folder: Path) -> dict[str, Any]:
    """Seconds from nothing to the first token, everything started at the earliest moment that works."""
    spec = LocalSpec(
        nodes=2,
        model=builtin()["smollm2"],
        model_path=str(model),
        parallel=on_cpu(2, None),
        run_id=secrets.token_hex(8),
        temp_dir=folder,
        state_dir=folder,
        cache_dir=cache_dir(environ()),
        cores=len(os.sched_getaffinity(0)),
    )
    plan = plan_local(spec)
    (folder / "ray.token").write_text(secrets.token_hex(32))
    (folder / "api.key").write_text("benchmark-key")
    (folder / "tmp").mkdir()
    children: list[subprocess.Popen[bytes]] = []

    def start(argv: Sequence[str], env: dict[str, str], log: str) -> None:
        with (folder / log).open("wb") as out:
            children.append(subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out))

    base = {name: value for name, value in environ().items() if name != "PYTHONDONTWRITEBYTECODE"}
    nodes = [agent_settings(node.env) for node in plan.nodes]
    marks = {}
    born = time.time()
    began = time.monotonic()
    try:
        start(start_argv(sys.executable, nodes[0], 1), start_env(nodes[0], base | plan.nodes[0].env), "head.log")
        wait_for(lambda: listening("127.0.0.1", plan.nodes[0].ports.gcs), 60)
        marks["GCS"] = time.monotonic() - began
        start(start_argv(sys.executable, nodes[1], 1), start_env(nodes[1], base | plan.nodes[1].env), "worker.log")
        wait_for(lambda: listening("127.0.0.2", plan.nodes[1].ports.node_manager), 60)
        wait_for(lambda: listening("127.0.0.1", plan.nodes[0].ports.node_manager), 60)
        marks["worker"] = time.monotonic() - began
        request_file = folder / "engine.json"
        document = {
            "model": "smollm2",
            "endpoint": "",
            "arguments": list(arguments),
            "env": dict(plan.engine.engine_env),
        }
        request_file.write_text(json.dumps(document))
        request = read_request(str(request_file))
        start(
            engine_argv(sys.executable, request), environment(base | plan.engine.env, request, "127.0.0.1"), "vllm.log"
        )
        wait_for(lambda: listening("127.0.0.1", PORT) and token("benchmark-key"), 300)
        return {"seconds": time.monotonic() - began, "phases": marks}
    finally:
        end(children)
        sweep.remove_shared_memory(born)


def end(children: Sequence["subprocess.Popen[bytes]"]) -> None:
    """End the engine first, then Ray, and whatever they had started."""
    family = [process for child in children for process in psutil.Process(child.pid).children(recursive=True)]
    for child in reversed(children):
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(10)
    for process in family:
        if process.is_running():
            process.kill()
    psutil.wait_procs(family, timeout=10)


def help_time(rounds: int) -> list[float]:
    """Seconds of `shoal --help`."""
    out = []
    for _ in range(rounds):
        began = time.monotonic()
        subprocess.run([str(BIN / "shoal"), "--help"], stdout=subprocess.DEVNULL, check=True)
        out.append(time.monotonic() - began)
    return out


def agents_at_rest(state: Path, seconds: float) -> list[dict[str, float]]:
    """CPU (percent of one core) and memory (resident and proportional, MB) of each agent over ``seconds``."""
    record = json.loads((state / "local" / "run.json").read_text())
    agents = [psutil.Process(proc["pid"]) for proc in record["procs"] if proc["kind"] == "agent"]
    before = [sum(agent.cpu_times()[:4]) for agent in agents]
    time.sleep(seconds)
    out = []
    for agent, then in zip(agents, before, strict=True):
        used, memory = sum(agent.cpu_times()[:4]) - then, agent.memory_full_info()
        out.append(
            {"cpu_percent": 100 * used / seconds, "rss_mb": memory.rss / 1e6, "pss_mb": memory.pss / 1e6}
        )  # fmt: skip
    return out


def down(state: Path) -> None:
    """Take shoal's cluster down."""
    subprocess.run(
        [str(BIN / "shoal"), "down"],
        env={**environ(), "SHOAL_STATE_DIR": str(state)},
        stdout=subprocess.DEVNULL,
        check=True,
    )


def one_round(number: int, rest: float) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, float]]]:
    """One turn of each; who goes first alternates."""
    state = Path(tempfile.mkdtemp(prefix="shoal-bench-", dir="/tmp"))
    folder = Path(tempfile.mkdtemp(prefix="hand-", dir="/tmp"))
    shoal: dict[str, Any] = {}
    hand: dict[str, Any] = {}
    resting: list[dict[str, float]] = []

    def turn_shoal() -> None:
        nonlocal shoal, resting
        try:
            shoal = through_shoal(state)
            resting = agents_at_rest(state, rest) if rest else []
        finally:
            down(state)

    def turn_hand() -> None:
        nonlocal hand
        entry = next(iter(sorted((cache_dir(environ()) / "models").glob("smollm2-*"))))
        hand = by_hand(entry, engine_arguments(entry, folder), folder)

    try:
        for turn in (turn_shoal, turn_hand) if number % 2 == 0 else (turn_hand, turn_shoal):
            turn()
    finally:
        shutil.rmtree(state, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
    return shoal, hand, resting


def engine_arguments(model: Path, folder: Path) -> tuple[str, ...]:
    """The very arguments that shoal gives to vLLM."""
    spec = LocalSpec(
        2, builtin()["smollm2"], str(model), on_cpu(2, None), "x", folder, folder, cache_dir(environ()), cores=1
    )
    return plan_local(spec).engine.arguments


def summary(shoal: Sequence[float], hand: Sequence[float]) -> dict[str, float]:
    """Medians and the overhead of shoal over by hand, in seconds and percent."""
    mine, other = statistics.median(shoal), statistics.median(hand)
    return {
        "shoal_median_s": round(mine, 2),
        "by_hand_median_s": round(other, 2),
        "overhead_s": round(mine - other, 2),
        "overhead_percent": round(100 * (mine - other) / other, 1),
    }


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="bring-up through shoal and by hand, in turns")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rest", type=float, default=30.0, help="seconds to watch the agents at rest (first round)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bringup.json"))
    words = parser.parse_args()
    shoal, hand, resting = [], [], []
    for number in range(words.rounds):
        one, other, rest = one_round(number, words.rest if number == 0 else 0)
        shoal.append(one)
        hand.append(other)
        resting += rest
        print(f"round {number + 1}: shoal {one['seconds']:.1f} s, by hand {other['seconds']:.1f} s", flush=True)
    helps = help_time(10)
    result = {
        "command": f"python -m benchmarks.bringup --rounds {words.rounds}",
        "machine": {"cores": len(os.sched_getaffinity(0)), "memory_gb": round(psutil.virtual_memory().total / 1e9, 1)},
        "kernel": platform.release(),
        "versions": versions().model_dump(),
        "rounds": {"shoal": shoal, "by_hand": hand},
        "bringup": summary([one["seconds"] for one in shoal], [one["seconds"] for one in hand]),
        "help_ms": {"median": round(1000 * statistics.median(helps)), "worst": round(1000 * max(helps))},
        "agents_at_rest": resting,
    }
    words.out.parent.mkdir(parents=True, exist_ok=True)
    words.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({key: result[key] for key in ("bringup", "help_ms", "agents_at_rest")}, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
