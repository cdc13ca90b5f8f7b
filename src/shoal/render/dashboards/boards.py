"""The three dashboards: cluster, fabric, engine. Every query is of a metric that shoal or vLLM has."""

from shoal.render.dashboards.panels import Board, Panel, Query

NODE = '{node=~"$node"}'
WINDOW = "[$__rate_interval]"
BITS = 8


def _quantiles(metric: str) -> tuple[Query, ...]:
    """Median and 95th percentile of one of vLLM's histograms, over all its engines."""
    grown = f"sum by (le) (rate(vllm:{metric}_bucket{WINDOW}))"
    return tuple(Query(f"histogram_quantile({q}, {grown})", f"p{q * 100:.0f}") for q in (0.5, 0.95))


def _stat(
    title: str, expr: str, about: str, *, legend: str = "", unit: str = "short", good: bool | None = None
) -> Panel:
    return Panel(title, (Query(expr, legend),), about, "stat", unit, 4, good=good)


def _gpu(title: str, expr: str, unit: str, about: str, most: float | None = None) -> Panel:
    return Panel(title, (Query(expr, "{{node}} GPU {{gpu}}"),), about, unit=unit, needs="gpu", most=most)


CLUSTER = Board(
    "shoal-cluster",
    "shoal: cluster",
    (
        _stat(
            "A token can be produced", "shoal_engine_ready", "Not that a process lives: that tokens come.", good=True
        ),
        _stat("Engine", "shoal_engine_state == 1", "Where the engine stands.", legend="{{state}}"),
        _stat("Nodes present", "shoal_engine_present_nodes", "Nodes that are there as the gate expects them."),
        _stat("Nodes expected", "shoal_engine_expected_nodes", "Nodes that the gate waits for."),
        _stat("Traffic goes over", "shoal_engine_transport == 1", "As NCCL and the counters tell.", legend="{{kind}}"),
        _stat("Gave up", "shoal_engine_breaker_open", "The supervisor restarts no more by itself.", good=False),
        Panel(
            "Nodes up",
            (Query(f"shoal_node_up{NODE}", "{{node}} ({{role}})"),),
            "1 while the node is joined and verified.",
            "state-timeline",
            most=1,
        ),
        Panel(
            "Agents' stages",
            (Query(f"shoal_node_stage{NODE} == 1", "{{node}} {{stage}}"),),
            "Which stage each agent was in.",
            "state-timeline",
        ),
        Panel(
            "Age of heartbeats",
            (Query("shoal_heartbeat_age_seconds", "{{peer}}, as {{node}} hears it"),),
            "Each worker tells the head once a second that it is there. Suspect after 1.8 s.",
            unit="s",
        ),
        Panel(
            "Restarts",
            (
                Query(f"shoal_node_restarts{NODE}", "Ray on {{node}}, in ten minutes"),
                Query("shoal_engine_restarts_total", "engine, since its supervisor began"),
            ),
            "A crash loop opens a breaker.",
        ),
        Panel(
            "Findings",
            (Query(f"sum by (node, severity) (shoal_node_findings{NODE})", "{{node}} {{severity}}"),),
            "What each agent's checks found at its start. `shoal doctor` says it in words.",
            "bargauge",
        ),
        Panel(
            "Versions",
            (Query("shoal_build_info", "{{node}}"),),
            "They must agree across nodes: the gate keeps it.",
            "table",
        ),
        _gpu("GPU use", f"shoal_gpu_utilization_ratio{NODE}", "percentunit", "Share of time in which it computed.", 1),
        _gpu(
            "GPU memory in use",
            f"shoal_gpu_memory_used_bytes{NODE}",
            "bytes",
            "Unified memory is not told by the driver.",
        ),
        _gpu("GPU temperature", f"shoal_gpu_temperature_celsius{NODE}", "celsius", "Hot GPUs slow down."),
        _gpu("GPU power", f"shoal_gpu_power_watts{NODE}", "watt", "Power draw."),
    ),
)


def _hca(title: str, expr: str, unit: str, about: str, *, legend: str = "", most: float | None = None) -> Panel:
    return Panel(
        title, (Query(expr, legend or "{{node}} {{device}}/{{port}}"),), about, unit=unit, needs="hca", most=most
    )


def _share(way: str) -> str:
    return (
        f"rate(shoal_hca_{way}_bytes_total{NODE}{WINDOW})"
        f" / on (node, device, port) shoal_hca_link_rate_bytes_per_second{NODE}"
    )


FABRIC = Board(
    "shoal-fabric",
    "shoal: fabric",
    (
        _stat(
            "Over TCP by mistake", "shoal_engine_transport_degraded", "RDMA was planned, and is not used.", good=False
        ),
        Panel(
            "What the traffic went over",
            (Query("shoal_engine_transport == 1", "{{kind}}"),),
            "As NCCL's words and the byte counters tell.",
            "state-timeline",
            width=20,
        ),
        _hca("Sent", f"rate(shoal_hca_sent_bytes_total{NODE}{WINDOW}) * {BITS}", "bps", "RDMA traffic of each port."),
        _hca(
            "Received",
            f"rate(shoal_hca_received_bytes_total{NODE}{WINDOW}) * {BITS}",
            "bps",
            "RDMA traffic of each port.",
        ),
        _hca("Sent, share of the link", _share("sent"), "percentunit", "1 is all that the link can carry.", most=1),
        _hca("Received, share of the link", _share("received"), "percentunit", "1 is all that it can carry.", most=1),
        _hca(
            "Errors",
            f"sum by (node, device, port, counter) (rate(shoal_hca_errors_total{NODE}{WINDOW}))",
            "cps",
            "Error counters that the doctor judges, in events a second.",
            legend="{{node}} {{device}}/{{port}} {{counter}}",
        ),
        Panel(
            "Ports that are ACTIVE",
            (Query(f"shoal_hca_port_active{NODE}", "{{node}} {{device}}/{{port}} {{netdev}}"),),
            "A port that nothing is plugged into stays down for good.",
            "state-timeline",
            needs="hca",
            most=1,
        ),
    ),
)

ENGINE = Board(
    "shoal-engine",
    "shoal: engine",
    (
        _stat(
            "A token can be produced", "shoal_engine_ready", "Not that a process lives: that tokens come.", good=True
        ),
        _stat("Last token", "shoal_engine_last_token_age_seconds", "Seconds since the last token.", unit="s"),
        _stat("One token took", "shoal_engine_probe_latency_seconds", "The supervisor's last own request.", unit="s"),
        _stat("Wedged", "shoal_engine_wedged", "No token on request, and nothing moves.", good=False),
        _stat("Running", "sum(vllm:num_requests_running)", "Requests being answered."),
        _stat("Waiting", "sum(vllm:num_requests_waiting)", "Requests that wait for room."),
        Panel(
            "Tokens",
            (
                Query(f"sum(rate(vllm:generation_tokens_total{WINDOW}))", "generated"),
                Query(f"sum(rate(vllm:prompt_tokens_total{WINDOW}))", "of prompts"),
            ),
            "Tokens a second, over all requests.",
        ),
        Panel(
            "Requests",
            (
                Query("sum(vllm:num_requests_running)", "running"),
                Query("sum(vllm:num_requests_waiting)", "waiting"),
            ),
            "A queue that grows is more load than the engine takes.",
        ),
        Panel(
            "Time to first token",
            _quantiles("time_to_first_token_seconds"),
            "What a user waits for an answer.",
            unit="s",
        ),
        Panel("Between tokens", _quantiles("inter_token_latency_seconds"), "How fast an answer is written.", unit="s"),
        Panel("Whole requests", _quantiles("e2e_request_latency_seconds"), "From question to end.", unit="s"),
        Panel("Time in the queue", _quantiles("request_queue_time_seconds"), "Before anything is computed.", unit="s"),
        Panel(
            "KV cache in use",
            (Query("vllm:kv_cache_usage_perc", "engine {{engine}}"),),
            "Where it is full, requests wait or are put off.",
            unit="percentunit",
            most=1,
        ),
        Panel(
            "Finished requests",
            (Query(f"sum by (finished_reason) (rate(vllm:request_success_total{WINDOW}))", "{{finished_reason}}"),),
            "Requests a second, by how they ended.",
            unit="reqps",
        ),
        Panel(
            "Requests put off",
            (Query(f"sum(rate(vllm:num_preemptions_total{WINDOW}))", "put off"),),
            "Preemptions: the KV cache was full, and what was computed is computed again.",
            unit="reqps",
        ),
        Panel(
            "The supervisor's own requests",
            (
                Query(f"rate(shoal_engine_probes_total{WINDOW})", "asked"),
                Query(f"rate(shoal_engine_probes_failed_total{WINDOW})", "without an answer"),
            ),
            "One token is asked for where none was seen lately.",
            unit="reqps",
        ),
        Panel(
            "Phases of the last start",
            (Query("shoal_engine_phase_seconds", "{{phase}}"),),
            "Seconds of each phase.",
            "bargauge",
            unit="s",
            width=24,
        ),
    ),
)

BOARDS = (CLUSTER, FABRIC, ENGINE)
