"""The simulated engine's metrics, under vLLM's names."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from shoal.lab.sim.answers import MODEL

LABELS = ("model_name", "engine")
# vLLM's own bounds, so that a quantile of the simulation is as coarse as the real one.
FIRST = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1,
    2.5,
    5,
    7.5,
    10,
    20,
    40,
    80,
    160,
    640,
    2560,
)
BETWEEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
WHOLE = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
REASON = "finished_reason"
REASONS = ("stop", "length", "abort", "error", "repetition")


class Metrics:
    """Counters and histograms of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.generated = self._counter("generation_tokens", "Tokens generated")
        self.prompted = self._counter("prompt_tokens", "Tokens of prompts")
        self.running = self._gauge("num_requests_running", "Requests being answered")
        self.waiting = self._gauge("num_requests_waiting", "Requests waiting")
        self.kv_cache = self._gauge("kv_cache_usage_perc", "Share of the KV cache in use")
        self.iteration = self._histogram("iteration_tokens_total", "Tokens per step", (1, 8, 64, 512))
        self.first_token = self._histogram("time_to_first_token_seconds", "Seconds to the first token", FIRST)
        self.between = self._histogram("inter_token_latency_seconds", "Seconds between tokens", BETWEEN)
        self.whole = self._histogram("e2e_request_latency_seconds", "Seconds from question to end", WHOLE)
        self.queued = self._histogram("request_queue_time_seconds", "Seconds in the queue: there is none here", WHOLE)
        self.preempted = self._counter("num_preemptions", "Requests put off: none is here")
        success = Counter("vllm:request_success", "Requests that ended", (*LABELS, REASON), registry=self.registry)
        self.ended = {reason: success.labels(MODEL, "0", reason) for reason in REASONS}

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"vllm:{name}", text, LABELS, registry=self.registry).labels(MODEL, "0")

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"vllm:{name}", text, LABELS, registry=self.registry).labels(MODEL, "0")

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        metric = Histogram(f"vllm:{name}", text, LABELS, registry=self.registry, buckets=buckets)
        return metric.labels(MODEL, "0")

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self.registry)
