"""The alert rules. Limits of error counters are the doctor's own, so that both say the same."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

AGENT, SUPERVISOR, VLLM = "shoal-agent", "shoal-supervisor", "vllm"
TCP, IDLE, ERRORS = "ShoalServingOverTcp", "ShoalHcaIdle", "ShoalHcaErrors"


@dataclass(frozen=True)
class Limit:
    """How much some counters of a port may grow: ``most`` together in ``per`` seconds; in any time where that is 0."""

    check: str
    title: str
    counters: tuple[str, ...]
    most: float
    per: float
    mend: str


@dataclass(frozen=True)
class Alert:
    """One rule. ``lasting`` is how long it must be true; the texts may name labels: ``{{ $labels.node }}``."""

    name: str
    expr: str
    summary: str
    description: str
    severity: Literal["critical", "warning"] = "critical"
    lasting: str = "0s"
    labels: dict[str, str] = field(default_factory=dict)

    def rule(self) -> dict[str, Any]:
        """As Prometheus reads it."""
        rule: dict[str, Any] = {"alert": self.name, "expr": self.expr}
        if self.lasting != "0s":
            rule["for"] = self.lasting
        rule["labels"] = {"severity": self.severity, **self.labels}
        rule["annotations"] = {"summary": self.summary, "description": self.description}
        return rule


CARRIED = "sum by (node) (rate(shoal_hca_sent_bytes_total[5m]) + rate(shoal_hca_received_bytes_total[5m]))"
FIXED = (
    Alert(
        "ShoalNodeLost",
        f'up{{job="{AGENT}"}} == 0',
        "the agent at {{ $labels.instance }} does not answer",
        "Its machine, its link or its container is down: shoal status",
        lasting="30s",
    ),
    Alert(
        "ShoalNodeNotUp",
        "shoal_node_up == 0",
        "{{ $labels.node }} is not in the cluster",
        "Its agent answers, and says why: shoal status",
        lasting="2m",
    ),
    Alert(
        "ShoalNodeGaveUp",
        'shoal_node_stage{stage="FAILED"} == 1',
        "{{ $labels.node }} has given up",
        "The breaker of its agent is open: shoal status says why",
    ),
    Alert(
        "ShoalNodeSilent",
        "shoal_heartbeat_age_seconds > 30",
        "{{ $labels.node }} has not heard {{ $labels.peer }} for {{ $value | humanizeDuration }}",
        "Its ranks are ended, and the engine is started again, once it counts as lost",
        "warning",
    ),
    Alert(
        "ShoalNotServing",
        "shoal_engine_ready == 0",
        "no token can be produced",
        "The engine has not been ready for five minutes: shoal status, then shoal events",
        lasting="5m",
    ),
    Alert(
        "ShoalSupervisorLost",
        f'up{{job="{SUPERVISOR}"}} == 0',
        "the engine's supervisor at {{ $labels.instance }} does not answer",
        "Nobody watches the engine: shoal status",
        lasting="1m",
    ),
    Alert(
        "ShoalEngineWedged",
        "shoal_engine_wedged == 1",
        "the engine hangs",
        "No token came on request and no counter moved. The supervisor saves evidence and restarts it: shoal events",
    ),
    Alert(
        "ShoalBreakerOpen",
        "shoal_engine_breaker_open == 1",
        "the engine stays down until somebody acts",
        "It ended too often, or a restart would only repeat it: shoal status, mend the cause, then shoal restart",
    ),
    Alert(
        TCP,
        "shoal_engine_transport_degraded == 1",
        "the engine serves over TCP although RDMA was planned",
        "Tokens come, but slowly: shoal prove, then shoal doctor",
        lasting="1m",
    ),
    # Single idle rails are normal: small messages use few. A node whose HCAs carry nothing at all is not.
    Alert(
        IDLE,
        f"{CARRIED} == 0 and on (node) sum by (node) (shoal_hca_port_active) > 0"
        " and on (node) shoal_node_gpus > 0 and on () shoal_engine_ready == 1"
        ' and on () shoal_engine_transport{kind="rdma"} == 1',
        "no HCA of {{ $labels.node }} carries anything while the engine serves over RDMA",
        "Its traffic takes another way, or it takes no part: shoal prove",
        "warning",
        lasting="5m",
    ),
)


def alerts(limits: Sequence[Limit]) -> tuple[Alert, ...]:
    """All rules."""
    return (*FIXED, *(_errors(limit) for limit in limits))


def _errors(limit: Limit) -> Alert:
    names = "|".join(limit.counters)
    chosen = f'shoal_hca_errors_total{{counter=~"{names}"}}'
    by = "sum by (node, device, port)"
    expr = f"{by} (rate({chosen}[5m])) > {limit.most / limit.per:g}" if limit.per else ""
    port = "{{ $labels.device }} of {{ $labels.node }}"
    return Alert(
        ERRORS,
        expr or f"{by} (increase({chosen}[10m])) > {limit.most:g}",
        f"not so on {port}: {limit.title}",
        limit.mend.format(port="{{ $labels.device }}", device="{{ $labels.device }}", netdev="NETDEV"),
        "warning",
        labels={"check": limit.check},
    )


def document(rules: Sequence[Alert]) -> dict[str, Any]:
    """The rules as a file of Prometheus'."""
    return {"groups": [{"name": "shoal", "rules": [rule.rule() for rule in rules]}]}
