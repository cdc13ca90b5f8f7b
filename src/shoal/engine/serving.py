"""What the engine does for its users: rates and quantiles between two readings of vLLM's own metrics. Pure.

vLLM counts since its start. What is shown is the last seconds: the growth of a counter by its time, and quantiles over
the growth of a histogram's buckets.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shoal.state.live import ServingLive

BUCKET = re.compile(r'\ble="([^"]+)"')
TTFT = "vllm:time_to_first_token_seconds"
# By the names of vLLM since 0.11, of 0.10, and of those before.
ITL = ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds")
CACHE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
TOKENS, PROMPTS = "vllm:generation_tokens_total", "vllm:prompt_tokens_total"
RUNNING, WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"
SUMS = frozenset({TOKENS, PROMPTS, RUNNING, WAITING})
HISTOGRAMS = frozenset({TTFT, *ITL})
KEPT = 30.0  # seconds of readings
LEAST = 2.0  # seconds between two that are kept
WINDOW = 10.0  # what is shown is about the last so many seconds
Buckets = Mapping[float, float]


@dataclass(frozen=True)
class Reading:
    """vLLM's metrics, summed over its engines; the KV cache's use is that of the fullest."""

    sums: Mapping[str, float] = field(default_factory=dict)
    buckets: Mapping[str, Buckets] = field(default_factory=dict)
    cache: float | None = None


def parse(text: str) -> Reading:
    """The few metrics that are wanted, out of Prometheus' text form. Torn lines are passed over."""
    sums: dict[str, float] = {}
    buckets: dict[str, dict[float, float]] = {}
    cache: list[float] = []
    for line in text.splitlines():
        if not line.startswith("vllm:"):
            continue
        name, rest = line.partition("{")[0].partition(" ")[0], line.rpartition(" ")[2]
        base, bucket = name.removesuffix("_bucket"), BUCKET.search(line)
        if (value := _number(rest)) is None:
            continue
        if name in SUMS:
            sums[name] = sums.get(name, 0.0) + value
        elif name in CACHE:
            cache.append(value)
        elif bucket and base in HISTOGRAMS and (bound := _number(bucket[1])) is not None:
            found = buckets.setdefault(base, {})
            found[bound] = found.get(bound, 0.0) + value
    return Reading(sums, buckets, max(cache, default=None))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isnan(value) else value


def histogram_quantile(q: float, buckets: Buckets) -> float | None:
    """The value below which the share ``q`` lies, as Prometheus estimates it; None for a histogram without content.

    ``buckets`` are cumulative: upper bound -> count, with ``inf`` for all. Within a bucket the values are taken as
    evenly spread from its lower bound on, which is 0 for the first; of what lies beyond the last finite bound nothing
    more is known than that bound.
    """
    bounds = sorted(buckets)
    total = buckets.get(math.inf, 0.0)
    if total <= 0 or len(bounds) < 2:
        return None
    rank, below, lower = q * total, 0.0, 0.0
    for bound in bounds:
        count = buckets[bound]
        if count >= rank and count > below:
            if bound == math.inf:
                return lower
            start = lower if bound > 0 else bound
            return start + (bound - start) * (rank - below) / (count - below)
        below, lower = max(below, count), bound
    return None


def between(before: Reading | None, after: Reading, seconds: float) -> ServingLive:
    """What happened between two readings that are so many seconds apart; of one alone only its gauges are told."""
    old = before or Reading()

    def rate(name: str) -> float | None:
        grown = _grown(old.sums.get(name), after.sums.get(name))
        return None if grown is None or seconds <= 0 else grown / seconds

    first, token = _growth(old, after, (TTFT,)), _growth(old, after, ITL)
    return ServingLive(
        tokens_per_s=rate(TOKENS),
        prompt_tokens_per_s=rate(PROMPTS),
        ttft_p50_s=histogram_quantile(0.5, first),
        ttft_p95_s=histogram_quantile(0.95, first),
        itl_p50_s=histogram_quantile(0.5, token),
        itl_p95_s=histogram_quantile(0.95, token),
        kv_cache_use=after.cache,
        requests_running=_whole(after.sums.get(RUNNING)),
        requests_waiting=_whole(after.sums.get(WAITING)),
    )


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _grown(before: float | None, after: float | None) -> float | None:
    """The growth of a counter; one that fell was begun anew, and what it shows now came since then."""
    if before is None or after is None:
        return None
    return after - before if after >= before else after


def _growth(before: Reading, after: Reading, names: Sequence[str]) -> Buckets:
    """The growth of the first of these histograms that both readings have."""
    for name in names:
        old, new = before.buckets.get(name), after.buckets.get(name)
        if old is not None and new is not None:
            if any(count < old.get(bound, 0.0) for bound, count in new.items()):
                return new  # begun anew, in all its buckets: some may have more than before already
            return {bound: count - old.get(bound, 0.0) for bound, count in new.items()}
    return {}


@dataclass(frozen=True)
class Served:
    """The readings of the last seconds: moment and text. They are parsed only when somebody asks."""

    texts: tuple[tuple[float, str], ...] = ()

    def take(self, text: str, now: float) -> "Served":
        """With one more; those that are old are let go."""
        if self.texts and now - self.texts[-1][0] < LEAST:
            return self
        return Served((*(one for one in self.texts if now - one[0] <= KEPT), (now, text)))

    def live(self, now: float) -> ServingLive | None:
        """What happened lately; None where nothing was read lately."""
        if not self.texts or now - self.texts[-1][0] > KEPT:
            return None
        at, newest = self.texts[-1]
        early = [one for one in self.texts if at - one[0] >= WINDOW] or list(self.texts[:1])
        then, oldest = early[-1]
        return between(parse(oldest) if then < at else None, parse(newest), at - then)
