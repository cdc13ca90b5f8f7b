"""What the engine does for its users, out of vLLM's metrics: rates and quantiles between two readings."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.engine.serving import KEPT, Reading, Served, between, histogram_quantile, parse
from shoal.state.live import ServingLive

TEXT = """# HELP vllm:num_requests_running Number of requests
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="m, n=\\"le\\""}} {running}
vllm:num_requests_running{{engine="1",model_name="m"}} 1.0
vllm:num_requests_waiting{{engine="0",model_name="m"}} 3.0
vllm:kv_cache_usage_perc{{engine="0",model_name="m"}} 0.25
vllm:kv_cache_usage_perc{{engine="1",model_name="m"}} 0.5
vllm:generation_tokens_total{{engine="0",model_name="m"}} {tokens}
vllm:prompt_tokens_total{{engine="0",model_name="m"}} 7.0
vllm:time_to_first_token_seconds_sum{{engine="0",model_name="m"}} 9.0
vllm:time_to_first_token_seconds_bucket{{engine="0",le="0.1",model_name="m"}} {fast}
vllm:time_to_first_token_seconds_bucket{{engine="0",le="1.0",model_name="m"}} {all}
vllm:time_to_first_token_seconds_bucket{{engine="0",le="+Inf",model_name="m"}} {all}
vllm:{itl}_bucket{{engine="0",le="0.05",model_name="m"}} {all}
vllm:{itl}_bucket{{engine="0",le="+Inf",model_name="m"}} {all}
vllm:nothing_bucket{{le="+Inf"}} 1.0
vllm:generation_tokens_total{{engine="0"
python_gc_objects_collected_total{{generation="0"}} 400.0
"""


def text(*, tokens: float = 0, fast: float = 0, every: float = 0, itl: str = "inter_token_latency_seconds") -> str:
    """vLLM's metrics, with a line torn off and others that nobody wants."""
    return TEXT.format(tokens=tokens, fast=fast, all=every, running=2.0, itl=itl)


@pytest.mark.parametrize(
    ("q", "buckets", "wanted"),
    [
        (0.5, {0.1: 0, 1.0: 10, math.inf: 10}, 0.55),
        (0.5, {0.1: 10, 1.0: 10, math.inf: 10}, 0.05),
        (0.95, {0.1: 90, 1.0: 100, math.inf: 100}, 0.55),
        (0.99, {0.1: 0, 1.0: 5, math.inf: 10}, 1.0),
        (1.0, {0.1: 0, 1.0: 10, math.inf: 10}, 1.0),
        (0.5, {0.1: 0, 1.0: 0, math.inf: 0}, None),
        (0.5, {math.inf: 4}, None),
        (0.5, {}, None),
    ],
)
def test_quantiles(q: float, buckets: dict[float, float], wanted: float | None) -> None:
    """A quantile lies within its bucket in proportion, as Prometheus' histogram_quantile has it."""
    assert histogram_quantile(q, buckets) == (None if wanted is None else pytest.approx(wanted))


@given(
    counts=st.lists(st.integers(0, 1000), min_size=2, max_size=12),
    first=st.floats(0, 1),
    second=st.floats(0, 1),
)
def test_quantiles_are_in_order_and_within_the_bounds(counts: list[int], first: float, second: float) -> None:
    """A higher share never has a lower value, and no value lies beyond the last finite bound."""
    bounds = [*(float(number) for number in range(1, len(counts))), math.inf]
    buckets = {bound: float(sum(counts[: place + 1])) for place, bound in enumerate(bounds)}
    low, high = (histogram_quantile(q, buckets) for q in sorted((first, second)))
    if not sum(counts):
        assert (low, high) == (None, None)
    else:
        assert low is not None
        assert high is not None
        assert 0 <= low <= high + 1e-9 <= len(counts)


def test_what_is_read() -> None:
    """Engines are summed, the fullest KV cache is told, and lines that are torn or of others are passed over."""
    assert parse(text(tokens=5, fast=1, every=2)) == Reading(
        {
            "vllm:num_requests_running": 3.0,
            "vllm:num_requests_waiting": 3.0,
            "vllm:generation_tokens_total": 5.0,
            "vllm:prompt_tokens_total": 7.0,
        },
        {
            "vllm:time_to_first_token_seconds": {0.1: 1.0, 1.0: 2.0, math.inf: 2.0},
            "vllm:inter_token_latency_seconds": {0.05: 2.0, math.inf: 2.0},
        },
        0.5,
    )


@pytest.mark.parametrize("itl", ["inter_token_latency_seconds", "time_per_output_token_seconds"])
def test_between_two_readings(itl: str) -> None:
    """Rates by the time between, quantiles of what came meanwhile, under vLLM's names of now and of before."""
    before = parse(text(tokens=10, fast=100, every=100, itl=itl))
    after = parse(text(tokens=30, fast=100, every=110, itl=itl))
    assert between(before, after, 10.0).model_dump() == {
        "tokens_per_s": 2.0,
        "prompt_tokens_per_s": 0.0,
        "ttft_p50_s": pytest.approx(0.55),
        "ttft_p95_s": pytest.approx(0.955),
        "itl_p50_s": pytest.approx(0.025),
        "itl_p95_s": pytest.approx(0.0475),
        "kv_cache_use": 0.5,
        "requests_running": 3,
        "requests_waiting": 3,
    }


def test_an_engine_that_began_anew() -> None:
    """A counter that is lower than before tells what came since it began anew, never a negative rate."""
    told = between(parse(text(tokens=1000)), parse(text(tokens=20)), 10.0)
    assert told.tokens_per_s == 2.0


def test_a_histogram_begins_anew_as_a_whole() -> None:
    """A bucket that has more than before its engine began anew has not grown by the difference."""
    before = Reading(buckets={"vllm:time_to_first_token_seconds": {0.1: 5.0, 1.0: 100.0, math.inf: 100.0}})
    after = Reading(buckets={"vllm:time_to_first_token_seconds": {0.1: 6.0, 1.0: 6.0, math.inf: 6.0}})
    assert between(before, after, 10).ttft_p95_s == pytest.approx(0.095)


def test_one_reading_tells_gauges_only() -> None:
    """There is no rate without a second reading."""
    served = Served().take(text(tokens=5, every=5), 100.0)
    assert served.live(101.0) == ServingLive(kv_cache_use=0.5, requests_running=3, requests_waiting=3)


def test_the_last_seconds_are_told() -> None:
    """Of many readings the newest counts and one ten seconds before it; old ones are let go, and stale is unknown."""
    served = Served()
    for second in range(100):
        served = served.take(text(tokens=second * 3), float(second))
    told = served.live(99.0)
    assert (told.tokens_per_s if told else None, served.live(99.0 + KEPT + 1)) == (pytest.approx(3.0), None)
    assert len(served.texts) <= KEPT / 2 + 2
