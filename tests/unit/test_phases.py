"""Where vLLM stands in its start, read from what it really prints."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.engine import phases
from shoal.engine.phases import PHASES, Timeline, begins

# One start of vLLM 0.32 on two CPU nodes without compilation, shortened.
START = (Path(__file__).parent / "data" / "vllm-0.32-start.log").read_text(encoding="utf-8").splitlines()


def test_a_real_start() -> None:
    """The lines of a real start begin weights, warm-up and first token, and no other phase."""
    seen = dict.fromkeys(phase for line in START if (phase := begins(line)))
    assert tuple(seen) == (phases.WEIGHTS, phases.WARM_UP, phases.FIRST_TOKEN)


def test_a_real_start_as_a_timeline() -> None:
    """A timeline that reads a real start, a second per line, has each phase once, in order, and all seconds in it."""
    line = Timeline(phases.GATE, 0.0).enter(phases.PLACEMENT, 5.0)
    for now, text in enumerate(START, start=6):
        if phase := begins(text):
            line = line.enter(phase, float(now))
    end = 100.0
    assert [name for name, _ in line.finish(end).done] == ["gate", "placement", "weights", "warm-up", "first token"]
    assert sum(line.seconds(end).values()) == end


@pytest.mark.parametrize(
    ("line", "phase"),
    [
        ("INFO [gpu_model_runner.py:1] Starting to load model Qwen/Qwen3-8B...", phases.WEIGHTS),
        ("INFO 11-25 03:47:32 [model_runner.py:284] Loading model from scratch...", phases.WEIGHTS),
        ("INFO [backends.py:1] Using cache directory: /c/torch_compile_cache/ab/rank_0_0", phases.COMPILE),
        ("INFO [backends.py:1] Dynamo bytecode transform time: 4.12 s", phases.COMPILE),
        ("INFO [cpu_model_runner.py:1] Warming up model for the compilation...", phases.COMPILE),
        ("INFO [cpu_model_runner.py:1] Warming up done.", phases.WARM_UP),
        ("INFO [kv_cache_utils.py:1] GPU KV cache size: 43,296 tokens", phases.WARM_UP),
        ("Capturing CUDA graphs (decode, FULL):  50%|#####     | 1/2", phases.WARM_UP),
        ("INFO [gpu_model_runner.py:1] Graph capturing finished in 3 secs", phases.WARM_UP),
        ("INFO [api_server.py:1] Starting vLLM API server 0 on http://0.0.0.0:8000", phases.FIRST_TOKEN),
        ("INFO:     Application startup complete.", phases.FIRST_TOKEN),
        ("INFO [utils.py:347] Using LBHNC KV cache layout.", None),
        ('INFO:     127.0.0.1:1 - "POST /v1/completions HTTP/1.1" 200 OK', None),
        ("", None),
    ],
)
def test_lines(line: str, phase: str | None) -> None:
    """A phase begins with the line that vLLM prints at its beginning, and with no other."""
    assert begins(line) == phase


def test_a_skipped_phase() -> None:
    """A phase that no line told of is absent from the seconds."""
    line = Timeline(phases.PLACEMENT, 10.0).enter(phases.FIRST_TOKEN, 14.0)
    assert line.seconds(15.5) == {phases.PLACEMENT: 4.0, phases.FIRST_TOKEN: 1.5}


def test_no_step_back() -> None:
    """An earlier phase, or the same again, leaves the timeline as it is."""
    line = Timeline(phases.WARM_UP, 10.0)
    assert line.enter(phases.WEIGHTS, 11.0) is line
    assert line.enter(phases.WARM_UP, 11.0) is line


def test_finished() -> None:
    """The seconds of a finished timeline no longer grow."""
    line = Timeline(phases.GATE, 1.0).enter(phases.PLACEMENT, 2.0).finish(4.0)
    assert line.seconds(4.0) == line.seconds(400.0) == {phases.GATE: 1.0, phases.PLACEMENT: 2.0}


@given(st.lists(st.tuples(st.sampled_from(PHASES), st.floats(0, 100)), max_size=30))
def test_only_forward(entries: list[tuple[str, float]]) -> None:
    """Whatever is read, in whatever order, phases end in their own order, each at most once."""
    line, now = Timeline(phases.GATE, 0.0), 0.0
    for phase, seconds in entries:
        now += seconds
        line = line.enter(phase, now)
    order = [PHASES.index(name) for name, _ in (*line.done, (line.phase, 0.0))]
    assert order == sorted(set(order))
    assert all(seconds >= 0 for _, seconds in line.done)
