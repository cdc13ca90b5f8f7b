"""The simulated engine: answers follow from the prompt, arguments are vLLM's, metrics have vLLM's names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.engine.client import parse_counters
from shoal.engine.watch import Counters
from shoal.lab.sim import answers
from shoal.lab.sim.metrics import Metrics
from shoal.lab.sim.server import parser


@given(st.text(), st.integers(min_value=1, max_value=20))
def test_an_answer_is_its_tokens(prompt: str, tokens: int) -> None:
    """A stream's pieces, joined, are the whole answer, and as many words as tokens."""
    text = "".join(answers.token(prompt, index) for index in range(tokens))
    assert text == answers.answer(prompt, tokens)
    assert len(text.split()) == tokens


@given(st.text(), st.text())
def test_other_prompts_have_other_answers(one: str, other: str) -> None:
    """An answer tells which prompt it belongs to."""
    assert (answers.answer(one, 4) == answers.answer(other, 4)) == (one == other)


def test_a_chat_is_a_prompt() -> None:
    """Roles and contents, in their order."""
    messages = [{"role": "system", "content": "be short"}, {"role": "user", "content": "why?"}]
    assert answers.chat_prompt(messages) == "system: be short\nuser: why?"


def test_metrics_have_vllms_names() -> None:
    """The supervisor counts tokens of the simulation as it counts vLLM's."""
    metrics = Metrics()
    metrics.generated.inc(3)
    text = metrics.text().decode()
    assert parse_counters(text) == Counters(tokens=3.0, iterations=0.0)
    names = (
        "prompt_tokens_total", "num_requests_running", "num_requests_waiting", "kv_cache_usage_perc",
        "iteration_tokens_total_bucket", "time_to_first_token_seconds_sum", "inter_token_latency_seconds_count",
    )  # fmt: skip
    assert [name for name in names if f"vllm:{name}{{" not in text] == []


def test_an_unknown_argument_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """As vLLM does, it says which argument it does not know."""
    with pytest.raises(SystemExit):
        parser().parse_args(["--host", "127.0.0.1", "--port", "1", "--no-such"])
    assert "unrecognized arguments: --no-such" in capsys.readouterr().err
