"""The first cause, found in what vLLM and Ray really printed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.explain.errors import first_cause

DATA = Path(__file__).parent / "data"


def logged(name: str) -> str:
    return (DATA / f"vllm-0.32-{name}.log").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("timeout", "TimeoutError: Timed out waiting for engine core processes to start. "),
        ("no-cache", "ValueError: No available memory for the cache blocks. Try increasing "),
        (
            "too-long",
            "ValidationError: 1 validation error for ModelConfig Value error, User-specified max_model_len (999999) ",
        ),
        ("usage", "unrecognized arguments: --no-such-flag"),
    ],
)
def test_real_ends(name: str, start: str) -> None:
    """The cause of a real end is the sentence that a person would point at."""
    assert first_cause(logged(name))[: len(start)] == start


def test_a_real_start_has_no_cause() -> None:
    """A start that went well names no cause, for all its warnings."""
    assert first_cause(logged("start")) == ""


@pytest.mark.parametrize(
    "line",
    [
        "RuntimeError: CUDA error",
        "\x1b[36m(RayWorkerProc pid=1, ip=10.0.0.2)\x1b[0m RuntimeError: CUDA error",
        "\x1b[36m(RayWorkerProc pid=1)\x1b[0m (Worker pid=1) ERROR 11-23 05:31:27 [a/b.py:9] RuntimeError: CUDA error",
        "(EngineCore pid=1) ERROR 11-23 05:31:27 [core.py:1510] RuntimeError: CUDA error",
        "ERROR 11-23 05:31:27 [core.py:1510] RuntimeError: CUDA error",
        "(EngineCore pid=1) builtins.RuntimeError: CUDA error",
    ],
)
def test_prefixes(line: str) -> None:
    """Colours and the heads of Ray's and vLLM's lines are no part of the cause."""
    assert first_cause(f"Traceback (most recent call last):\n{line}\n") == "RuntimeError: CUDA error"


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (
            "api_server.py: error: argument --dtype: invalid choice: 'x' (choose from auto)",
            "argument --dtype: invalid choice: 'x' (choose from auto)",
        ),
        (
            "vllm: error: the following arguments are required: --model",
            "the following arguments are required: --model",
        ),
        ("torch.OutOfMemoryError: CUDA out of memory.", "OutOfMemoryError: CUDA out of memory."),
        ("huggingface_hub.errors.GatedRepoError: 401", "GatedRepoError: 401"),
        ("SystemExit: 1", "SystemExit: 1"),
        ('    raise ValueError("not a cause: only the code")', ""),
        ("WARNING 11-23 05:31:27 [a.py:1] can cause errors like `OSError: [Errno 24]`", ""),
        ("", ""),
    ],
)
def test_lines(line: str, cause: str) -> None:
    """Usage errors and the last lines of tracebacks are causes; source code and warnings are not."""
    assert first_cause(line) == cause


def test_a_field_that_is_wrong() -> None:
    """The cause of a validation error has the field's name and what is wrong with it."""
    log = (
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
        "dtype\n"
        "  Input should be 'auto' [type=literal_error, input_value='x', input_type=str]\n"
        "    For further information visit https://errors.pydantic.dev\n"
    )
    assert first_cause(log) == "ValidationError: 1 validation error for ModelConfig dtype Input should be 'auto'"


def test_the_first_cause_wins() -> None:
    """Of two errors, the earlier is the cause."""
    assert first_cause("KeyError: 'a'\nDuring handling of it\nValueError: b\n") == "KeyError: 'a'"


CASCADES = (
    "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace above.",
    "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
    "ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.",
    "BrokenPipeError: [Errno 32] Broken pipe",
)


@given(st.lists(st.sampled_from(CASCADES), max_size=4), st.lists(st.sampled_from(CASCADES), max_size=4))
def test_consequences_never_win(before: list[str], after: list[str]) -> None:
    """An error that only reports another's is the cause nowhere, before it or after it."""
    assert first_cause("\n".join((*before, "ValueError: the cause", *after))) == "ValueError: the cause"


def test_only_consequences() -> None:
    """Where nothing but consequences was printed, the first of them is told."""
    assert first_cause("\n".join(CASCADES[2:])) == (
        "ActorDiedError: The actor died unexpectedly before finishing this task."
    )


def test_length() -> None:
    """A cause is at most 400 characters long."""
    assert len(first_cause(f"ValueError: {'x' * 5000}")) == 400


@given(st.text())
def test_any_text(log: str) -> None:
    """Any text is read without a fault."""
    assert isinstance(first_cause(log), str)
