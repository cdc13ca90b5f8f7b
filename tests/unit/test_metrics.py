"""The metrics of agent and supervisor: read by Prometheus' own parser, and named by its conventions."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from shoal.agent.app import agent_app
from shoal.agent.readings import gpus, hcas
from shoal.engine.app import engine_app
from shoal.host import capture
from shoal.state.live import EngineLive, FindingLive, HeartbeatLive, NodeLive
from shoal.state.status import (
    EngineState,
    EngineStatus,
    NodeState,
    NodeStatus,
    Transport,
    TransportStatus,
    Versions,
)

MACHINE = capture.load(Path(__file__).parents[1] / "machines" / "spark-pair")[0]
VERSIONS = Versions(shoal="1", python="3.12", ray="2.50")
NODE = NodeStatus(
    name="gx1", role="head", address="10.0.0.1", state=NodeState.UP, stage="UP", gpus=1, restarts=2, versions=VERSIONS
)
LIVE = NodeLive(
    node=NODE,
    at=1.0,
    gpus=gpus(MACHINE),
    hcas=hcas(MACHINE),
    findings=(FindingLive(id="a.b", status="FAIL", severity="error", title="t"),),
    heartbeats=(HeartbeatLive(name="gx2", address="10.0.0.2", age_s=0.5),),
)
TCP = TransportStatus(kind=Transport.TCP, degraded=True)
ENGINE = EngineLive(
    engine=EngineStatus(
        state=EngineState.READY,
        model="m",
        phases={"gate": 1.5},
        last_token_age_s=0.2,
        restarts=3,
        transport=TCP,
    ),
    at=1.0,
    expected_nodes=2,
    present_nodes=1,
    probe_s=0.25,
    probes_total=9,
    probes_failed_total=4,
    wedged=True,
    breaker_open=True,
)
Samples = dict[tuple[str, ...], float]


def node_text(live: NodeLive) -> str:
    async def ask() -> NodeLive:
        return live

    return TestClient(agent_app(lambda: live.node, live=ask)).get("/metrics").text


def engine_text(live: EngineLive) -> str:
    async def never() -> EngineStatus:
        raise AssertionError("a scrape must not ask the engine for a token")

    return TestClient(engine_app(never, lambda: live, lambda: "")).get("/metrics").text


def families(text: str) -> list[Metric]:
    return list(text_string_to_metric_families(text))


def samples(text: str, but: str = "") -> Samples:
    """Every sample that is not 0: its name and its labels' values, by the labels' names, to its value."""
    every = (one for family in families(text) for one in family.samples if not one.name.startswith(but or "-"))
    return {(one.name, *(value for _, value in sorted(one.labels.items()))): one.value for one in every if one.value}


def test_a_node() -> None:
    """Stage, restarts, findings and heartbeats follow the document, and GPUs and ports have their own labels."""
    uuid = "GPU-000f01000-0000-4000-8000-000000000000"
    assert samples(node_text(LIVE), but="shoal_hca") == {
        ("shoal_build_info", "gx1", "3.12", "2.50", "head", "1"): 1.0,
        ("shoal_node_up", "gx1", "head"): 1.0,
        ("shoal_node_stage", "gx1", "UP"): 1.0,
        ("shoal_node_restarts", "gx1"): 2.0,
        ("shoal_node_gpus", "gx1"): 1.0,
        ("shoal_node_findings", "gx1", "error"): 1.0,
        ("shoal_heartbeat_age_seconds", "gx1", "gx2"): 0.5,
        ("shoal_gpu_temperature_celsius", "0", "gx1", uuid): 34.0,
        ("shoal_gpu_power_watts", "0", "gx1", uuid): 12.0,
    }


def test_the_ports_of_a_node() -> None:
    """Bytes and errors are counters; a link's rate is in bytes a second, as what it carries is."""
    told = LIVE.hcas[1].model_copy(
        update={"received_bytes_total": 7, "sent_bytes_total": 8, "errors": {"symbol_error": 5}}
    )
    assert samples(node_text(LIVE.model_copy(update={"hcas": (told,), "gpus": ()})), but="shoal_node") == {
        ("shoal_build_info", "gx1", "3.12", "2.50", "head", "1"): 1.0,
        ("shoal_heartbeat_age_seconds", "gx1", "gx2"): 0.5,
        ("shoal_hca_port_active", "roceP2p1s0f1", "Ethernet", "enP2p1s0f1np1", "gx1", "1"): 1.0,
        ("shoal_hca_link_rate_bytes_per_second", "roceP2p1s0f1", "gx1", "1"): 25e9,
        ("shoal_hca_received_bytes_total", "roceP2p1s0f1", "gx1", "1"): 7.0,
        ("shoal_hca_sent_bytes_total", "roceP2p1s0f1", "gx1", "1"): 8.0,
        ("shoal_hca_errors_total", "symbol_error", "roceP2p1s0f1", "gx1", "1"): 5.0,
    }


def test_an_agent_that_waits_for_its_address_has_metrics() -> None:
    """There is no more than its status yet."""
    text = TestClient(agent_app(lambda: NODE.model_copy(update={"state": NodeState.WAITING}))).get("/metrics").text
    assert [one for one in samples(text) if one[0] == "shoal_node_up"] == []
    assert 'shoal_node_up{node="gx1",role="head"} 0.0' in text


def test_the_engine() -> None:
    """State, gate, probes and transport follow the document; no token is asked for."""
    assert samples(engine_text(ENGINE), but="shoal_build") == {
        ("shoal_engine_state", "ready"): 1.0,
        ("shoal_engine_ready",): 1.0,
        ("shoal_engine_phase_seconds", "gate"): 1.5,
        ("shoal_engine_restarts_total",): 3.0,
        ("shoal_engine_expected_nodes",): 2.0,
        ("shoal_engine_present_nodes",): 1.0,
        ("shoal_engine_wedged",): 1.0,
        ("shoal_engine_breaker_open",): 1.0,
        ("shoal_engine_last_token_age_seconds",): 0.2,
        ("shoal_engine_probe_latency_seconds",): 0.25,
        ("shoal_engine_probes_total",): 9.0,
        ("shoal_engine_probes_failed_total",): 4.0,
        ("shoal_engine_transport", "tcp"): 1.0,
        ("shoal_engine_transport_degraded",): 1.0,
    }


UNITS = {"seconds", "bytes", "celsius", "watts", "ratio", "second"}
NOT_BASE = re.compile(r"_(ms|milliseconds|minutes|hours|kb|mb|gb|mib|gib|kib|bits|gbps|percent|fahrenheit)(_|$)")


def complaints(metric: Metric) -> Iterator[str]:
    """What Prometheus' conventions have against a metric."""
    if not re.fullmatch(r"shoal_[a-z][a-z0-9]*(_[a-z0-9]+)*", metric.name):
        yield f"{metric.name}: not in snake case, or without our prefix"
    if NOT_BASE.search(metric.name):
        yield f"{metric.name}: not a base unit"
    if not metric.documentation:
        yield f"{metric.name}: no help"
    if metric.type not in {"counter", "gauge"}:
        yield f"{metric.name}: {metric.type}"
    for sample in metric.samples:
        if (metric.type == "counter") is not sample.name.endswith("_total"):
            yield f"{sample.name}: only counters end with _total, and all of them do"
        if any(not re.fullmatch(r"[a-z][a-z0-9_]*", label) for label in sample.labels):
            yield f"{sample.name}: {sorted(sample.labels)}"


@pytest.mark.parametrize("text", [node_text(LIVE), engine_text(ENGINE)], ids=["agent", "supervisor"])
def test_names_and_units(text: str) -> None:
    """Snake case, base units, `_total` for counters and for nothing else, and a help text for each."""
    told = families(text)
    assert [words for family in told for words in complaints(family)] == []
    assert len({family.name for family in told}) == len(told) >= 10


def test_a_hostile_name_breaks_no_metric() -> None:
    """Quotes, line ends and backslashes in a node's name come back as they were."""
    name = 'a"b\\c\nd} 1'
    told = node_text(LIVE.model_copy(update={"node": NODE.model_copy(update={"name": name})}))
    assert {one.labels["node"] for family in families(told) for one in family.samples} == {name}
