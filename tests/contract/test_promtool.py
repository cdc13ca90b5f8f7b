"""Metrics, alert rules and settings, judged by Prometheus' own promtool.

Each alert fires on its fault, and is silent while all is well.
"""

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.test_metrics import ENGINE, LIVE, engine_text, node_text

from shoal.ops.dashboards import rules, targets
from shoal.render.dashboards.alerts import ERRORS, document
from shoal.render.dashboards.stack import files

pytestmark = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool (apt install prometheus)")

WELL = {
    'up{job="shoal-agent", instance="10.0.0.1:8700"}': "1x60",
    'up{job="shoal-supervisor", instance="10.0.0.1:8701"}': "1x60",
    'shoal_node_up{node="a", role="head"}': "1x60",
    'shoal_node_gpus{node="a"}': "1x60",
    'shoal_node_stage{node="a", stage="FAILED"}': "0x60",
    'shoal_heartbeat_age_seconds{node="a", peer="b"}': "1x60",
    "shoal_engine_ready": "1x60",
    "shoal_engine_wedged": "0x60",
    "shoal_engine_breaker_open": "0x60",
    "shoal_engine_transport_degraded": "0x60",
    'shoal_engine_transport{kind="rdma"}': "1x60",
    'shoal_hca_port_active{node="a", device="mlx5_0", port="1", netdev="e0", link_layer="Ethernet"}': "1x60",
    'shoal_hca_port_active{node="a", device="mlx5_1", port="1", netdev="e1", link_layer="Ethernet"}': "0x60",
    'shoal_hca_sent_bytes_total{node="a", device="mlx5_0", port="1"}': "0+1000x60",
    'shoal_hca_received_bytes_total{node="a", device="mlx5_0", port="1"}': "0+1000x60",
    'shoal_hca_sent_bytes_total{node="a", device="mlx5_1", port="1"}': "7x60",
    'shoal_hca_received_bytes_total{node="a", device="mlx5_1", port="1"}': "7x60",
}
LIMITS = [rule for rule in rules() if rule.name == ERRORS]


def errors_of(counter: str, values: str) -> dict[str, str]:
    """A counter of errors of the port that carries the traffic."""
    return {f'shoal_hca_errors_total{{node="a", device="mlx5_0", port="1", counter="{counter}"}}': values}


# Every counter stands where it stood for years: only growth is an error.
for one in LIMITS:
    WELL |= {key: value for name in one.expr.split('"')[1].split("|") for key, value in errors_of(name, "9x60").items()}


@dataclass(frozen=True)
class Fault:
    """Series that are otherwise than well, and who must fire then, and for whom."""

    name: str
    series: dict[str, str]
    labels: dict[str, str] = field(default_factory=dict)


FAULTS = [
    Fault("ShoalNodeLost", {'up{job="shoal-agent", instance="10.0.0.1:8700"}': "1x40 0x20"}, {"job": "shoal-agent"}),
    Fault("ShoalNodeNotUp", {'shoal_node_up{node="a", role="head"}': "1x40 0x20"}, {"node": "a"}),
    Fault("ShoalNodeGaveUp", {'shoal_node_stage{node="a", stage="FAILED"}': "0x58 1x2"}, {"node": "a"}),
    Fault("ShoalNodeSilent", {'shoal_heartbeat_age_seconds{node="a", peer="b"}': "1x40 1+15x20"}, {"peer": "b"}),
    Fault("ShoalNotServing", {"shoal_engine_ready": "1x20 0x40"}),
    Fault("ShoalSupervisorLost", {'up{job="shoal-supervisor", instance="10.0.0.1:8701"}': "1x40 0x20"}),
    Fault("ShoalEngineWedged", {"shoal_engine_wedged": "0x58 1x2"}),
    Fault("ShoalBreakerOpen", {"shoal_engine_breaker_open": "0x58 1x2"}),
    Fault("ShoalServingOverTcp", {"shoal_engine_transport_degraded": "0x40 1x20"}),
    Fault(
        "ShoalHcaIdle",
        {key: "1000x60" for key in WELL if "bytes_total" in key and "mlx5_0" in key},
        {"node": "a"},
    ),
    *(
        Fault(ERRORS, errors_of(limit.expr.split('"')[1].split("|")[-1], "9x40 9+2000x20"), limit.labels)
        for limit in LIMITS
    ),
]


def case(series: dict[str, str], firing: Fault | None) -> dict[str, Any]:
    """One test of promtool's: at the end of fifteen minutes exactly this alert fires, or none does."""
    wanted = [{"eval_time": "15m", "alertname": name, "exp_alerts": []} for name in sorted({r.name for r in rules()})]
    found: dict[str, Any] = {
        "name": firing.name if firing else "well",
        "interval": "15s",
        "input_series": [{"series": key, "values": values} for key, values in (WELL | series).items()],
    }
    if firing is None:
        return found | {"alert_rule_test": wanted}
    at = f'ALERTS{{alertname="{firing.name}", alertstate="firing"}}'
    others = f'count(ALERTS{{alertstate="firing", alertname!="{firing.name}"}})'
    labelled = f"{at} and on (alertname) " + at.replace(
        "}", "".join(f', {k}="{v}"' for k, v in firing.labels.items()) + "}"
    )
    one = [{"labels": "{}", "value": 1}]
    return found | {
        "promql_expr_test": [
            {"expr": f"count({labelled})", "eval_time": "15m", "exp_samples": one},
            {"expr": others, "eval_time": "15m", "exp_samples": []},
        ]
    }


def judged(folder: Path, cases: list[dict[str, Any]]) -> str:
    """What promtool has against them."""
    (folder / "alerts.yml").write_text(yaml.safe_dump(document(rules())))
    tests = {"rule_files": ["alerts.yml"], "evaluation_interval": "15s", "tests": cases}
    (folder / "tests.yml").write_text(yaml.safe_dump(tests))
    argv = ["promtool", "test", "rules", str(folder / "tests.yml")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_every_rule_has_a_fault() -> None:
    """None is without one, and each limit of the doctor's has its own."""
    assert {fault.name for fault in FAULTS} == {rule.name for rule in rules()}
    assert [fault.labels for fault in FAULTS if fault.name == ERRORS] == [limit.labels for limit in LIMITS]


def test_a_healthy_cluster_is_silent(tmp_path: Path) -> None:
    """With an idle second rail, and counters that hold what happened years ago."""
    assert judged(tmp_path, [case({}, None)]) == ""


def test_each_fault_fires_its_alert_and_no_other(tmp_path: Path) -> None:
    """One fault at a time, all else well."""
    assert judged(tmp_path, [case(fault.series, fault) for fault in FAULTS]) == ""


def test_a_fault_that_is_missed_would_be_seen(tmp_path: Path) -> None:
    """Promtool objects where an alert is expected of a healthy cluster: the tests above can fail."""
    assert "FAILED" in judged(tmp_path, [case({}, FAULTS[0])])


def test_the_settings_are_prometheus_own(tmp_path: Path) -> None:
    """The whole folder's settings, rules and targets are read without a complaint."""
    for name, text in files(targets(None, ("10.0.0.1", "10.0.0.2"), {}), rules()).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "key").mkdir()
    (tmp_path / "key" / "api.key").write_text("k")
    argv = ["promtool", "check", "config", str(tmp_path / "prometheus" / "prometheus.yml")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "FAILED" in done.stdout) == (0, False)


@pytest.mark.parametrize("text", [node_text(LIVE), engine_text(ENGINE)], ids=["agent", "supervisor"])
def test_the_metrics_are_well_named(text: str) -> None:
    """Its linter of names, types and help texts has nothing to say."""
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
