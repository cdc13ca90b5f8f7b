"""The simulated engine's metrics, under vLLM's names."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from shoal.lab.sim.answers import MODEL

LABELS = ("model_name", "engine")


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
        self.first_token = self._histogram("time_to_first_token_seconds", "Seconds to the first token", (0.1, 1, 10))
        self.between = self._histogram("inter_token_latency_seconds", "Seconds between tokens", (0.05, 0.1, 1))

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
