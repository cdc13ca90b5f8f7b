"""The supervisor's metrics, from the same document as its ``/live``. Names and units by Prometheus' conventions."""

from collections.abc import Iterator

from prometheus_client.core import Metric

from shoal.agent.metrics import build_info, counter, gauge
from shoal.facts.versions import versions
from shoal.state.live import EngineLive
from shoal.state.status import EngineState, EngineStatus, Transport


def engine_metrics(live: EngineLive) -> Iterator[Metric]:
    """All metrics of the engine's supervisor."""
    yield build_info(versions(), model=live.engine.model)
    yield from _state(live)
    yield from _tokens(live)
    yield from _transport(live.engine)


def _one(name: str, text: str, value: float | None) -> Metric:
    return gauge(name, text, (), [((), value)])


def _state(live: EngineLive) -> Iterator[Metric]:
    now = live.engine
    states = [((state.value,), float(state is now.state)) for state in EngineState]
    yield gauge("shoal_engine_state", "1 for the state that the engine is in", ("state",), states)
    yield _one("shoal_engine_ready", "1 while a token can be produced", now.state is EngineState.READY)
    phases = [((name,), seconds) for name, seconds in now.phases.items()]
    yield gauge("shoal_engine_phase_seconds", "Seconds of each phase of this start", ("phase",), phases)
    restarts = [((), float(now.restarts))]
    yield counter("shoal_engine_restarts", "Restarts since the supervisor began", (), restarts)
    yield _one("shoal_engine_expected_nodes", "Nodes that the gate waits for", live.expected_nodes)
    yield _one("shoal_engine_present_nodes", "Expected nodes that are there as expected", live.present_nodes)
    yield _one("shoal_engine_wedged", "1 from a wedge on until tokens come again", live.wedged)
    yield _one("shoal_engine_breaker_open", "1 while the supervisor has given up", live.breaker_open)


def _tokens(live: EngineLive) -> Iterator[Metric]:
    yield _one("shoal_engine_last_token_age_seconds", "Seconds since the last token", live.engine.last_token_age_s)
    yield _one("shoal_engine_probe_latency_seconds", "Time that the last request for one token took", live.probe_s)
    probes = [((), float(live.probes_total))]
    yield counter("shoal_engine_probes", "Requests of the supervisor's own for one token", (), probes)
    failed = [((), float(live.probes_failed_total))]
    yield counter("shoal_engine_probes_failed", "Those of them that brought none", (), failed)


def _transport(engine: EngineStatus) -> Iterator[Metric]:
    known = engine.transport
    kinds = [((kind.value,), float(known is not None and kind is known.kind)) for kind in Transport]
    yield gauge("shoal_engine_transport", "1 for what the traffic between nodes goes over", ("kind",), kinds)
    words = "1 while it serves over TCP although RDMA was planned"
    yield _one("shoal_engine_transport_degraded", words, engine.over_tcp)
