"""The report: one page that needs nothing but itself."""

import time
from collections.abc import Iterable, Iterator
from xml.etree import ElementTree as ET

from shoal import __version__
from shoal.bench import measure
from shoal.bench.measure import Measured, link_rate
from shoal.bench.proof import Proof
from shoal.checks.base import Finding, Status
from shoal.checks.run import Report
from shoal.facts.node import NodeFacts
from shoal.ops.report import Contents, Running
from shoal.plan.fabric import Fabric, NodeFabric
from shoal.state.journal import Entry
from shoal.state.live import EngineLive, HcaLive, NodeLive, ServingLive
from shoal.state.status import NodeState
from shoal.state.verdict import verdict
from shoal.ui import prove_page
from shoal.ui.doctor_page import alike, counted, summary
from shoal.ui.fabric_page import SHAPES
from shoal.ui.html import Child, el, page, table
from shoal.ui.report_plot import picture
from shoal.ui.report_style import STYLE

BAD = (Status.FAIL, Status.WARN)
GIB = 1 << 30
GPU_HEADS = ("node", "GPU", "name", "use", "memory, GiB", "temperature, C", "power, W")
HCA_HEADS = ("node", "HCA", "interface", "state", "Gb/s", "received, GB", "sent, GB", "errors since boot")


def render(contents: Contents) -> str:
    """The page's text."""
    clock = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(contents.made))
    title = f"shoal report, {clock}"
    events = contents.running.events if contents.running else None
    parts = [
        _section("Cluster", _running(contents.running)) if contents.running else None,
        _section("Findings", _findings(contents.doctor)),
        _section("Plan of the fabric", _fabric(contents.fabric, contents.nccl)) if contents.fabric else None,
        _section("Machines", _machines(contents.doctor.facts.values())),
        _section("Proof", _proof(contents)),
        _section("Bench", (part for name, found in contents.benches for part in _bench(name, found)))
        if contents.benches
        else None,
        _section("Events", _events(events)) if events is not None else None,
    ]
    about = "Secrets are left out. This page loads nothing and runs nothing."
    head = el("header", el("h1", "shoal report"), el("p", f"{clock}, by shoal {__version__}. {about}"))
    return page(title, STYLE, [head, el("main", *parts)], contents.secrets)


def _section(title: str, parts: Iterable[Child]) -> ET.Element:
    return el("section", el("h2", title), *parts)


def _mark(text: str, kind: str) -> ET.Element:
    """A word in a colour that says how it stands."""
    return el("span", text, class_=f"mark {kind}")


def _number(value: float | None, form: str = "{:.3g}", scale: float = 1.0) -> str:
    return "-" if value is None else form.format(value * scale)


# ---- the cluster


def _running(running: Running) -> Iterator[Child]:
    engine = running.engine
    status = running.status
    said = verdict(status, running.nodes)
    kind = {"good": "ok", "busy": "warn", "warn": "warn"}.get(said.level, "fail")
    yield el("p", _mark(status.state.value, kind), f" {said.words}", class_="state")
    if said.fix:
        yield el("pre", said.fix, class_="fix")
    yield el("p", f"Cluster {status.cluster}", f" at {running.endpoint}" if running.endpoint else "", class_="dim")
    yield from (el("p", _mark("silent", "fail"), f" {text}") for text in running.silent)
    if engine is not None:
        yield from _engine(engine)
    yield table(
        ("node", "role", "address", "state", "stage", "GPUs", "restarts", "what it says"),
        (_node(node) for node in running.nodes),
    )
    if any(node.gpus for node in running.nodes):
        yield table(GPU_HEADS, (row for node in running.nodes for row in _gpus(node)))
    if any(node.hcas for node in running.nodes):
        yield table(HCA_HEADS, ((node.node.name, *_hca(hca)) for node in running.nodes for hca in node.hcas))


def _engine(live: EngineLive) -> Iterator[Child]:
    now = live.engine
    phases = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in now.phases.items())
    rows: list[tuple[str, str]] = [
        ("model", now.model),
        ("engine", f"{now.state.value}{': ' + now.detail if now.detail else ''}"),
        ("phases of its start", phases),
        ("restarts", str(now.restarts)),
        ("last fault", now.last_fault),
        ("nodes", f"{live.present_nodes} of {live.expected_nodes} as expected" if live.expected_nodes else ""),
        ("traffic", f"{now.transport.kind.value}: {now.transport.detail}" if now.transport else ""),
        ("last token", f"{now.last_token_age_s:g} s before" if now.last_token_age_s is not None else "none"),
    ]
    yield table(("", ""), (row for row in (*rows, *_serving(live.serving)) if row[1]), class_="pairs")


def _serving(serving: ServingLive | None) -> Iterator[tuple[str, str]]:
    if serving is None:
        return
    yield "tokens a second", _number(serving.tokens_per_s)
    for title, half, most in (
        ("time to first token", serving.ttft_p50_s, serving.ttft_p95_s),
        ("inter-token latency", serving.itl_p50_s, serving.itl_p95_s),
    ):
        yield title, "" if half is None else f"median {half:.3g} s, p95 {_number(most)} s"
    running, waiting = (_number(value, "{:.0f}") for value in (serving.requests_running, serving.requests_waiting))
    yield "requests", f"{running} running, {waiting} waiting"
    yield "KV cache in use", _number(serving.kv_cache_use, "{:.0%}")


def _node(live: NodeLive) -> tuple[Child, ...]:
    node = live.node
    state = _mark(node.state.value, "ok" if node.state is NodeState.UP else "fail")
    return node.name, node.role, node.address, state, node.stage, str(node.gpus), str(node.restarts), node.detail


def _gpus(live: NodeLive) -> Iterator[tuple[str, ...]]:
    for gpu in live.gpus:
        used, total = (_number(value, "{:.1f}", 1 / GIB) for value in (gpu.memory_used_bytes, gpu.memory_total_bytes))
        yield (
            live.node.name,
            str(gpu.index),
            gpu.name,
            _number(gpu.utilisation, "{:.0%}"),
            f"{used} of {total}",
            _number(gpu.temperature_celsius),
            _number(gpu.power_watts),
        )


def _hca(hca: HcaLive) -> tuple[Child, ...]:
    errors = ", ".join(f"{name} {value}" for name, value in hca.errors.items() if value)
    state = _mark(hca.state or "unknown", "ok" if hca.state == "ACTIVE" else "dim")
    moved = (_number(value, "{:.2f}", 1e-9) for value in (hca.received_bytes_total, hca.sent_bytes_total))
    return f"{hca.device}/{hca.port}", hca.netdev, state, _number(hca.rate_gbps), *moved, errors or "none"


# ---- findings and machines


def _findings(report: Report) -> Iterator[Child]:
    every = [(finding, nodes if len(report.nodes) > 1 else "") for finding, nodes in alike(report)]
    unknown = [_finding(*one) for one in every if one[0].status is Status.UNKNOWN]
    yield el("p", summary(report))
    yield from (
        el("p", _mark("NO WAY", "fail"), f" {name}: {error.what}") for name, error in report.unreachable.items()
    )
    yield from (_finding(*one) for one in every if one[0].status in BAD)
    if unknown:
        yield el("details", el("summary", f"What could not be told: {len(unknown)}"), *unknown)
    yield el("details", el("summary", "All checks, by group"), el("pre", "\n".join(counted(report))))


def _finding(finding: Finding, nodes: str) -> ET.Element:
    kind = {Status.FAIL: "fail", Status.WARN: "warn"}.get(finding.status, "dim")
    title = el("h3", _mark(finding.status.value, kind), f" {finding.title}")
    where = el("p", el("code", finding.id), f" {nodes}", class_="dim")
    fix = el("pre", finding.fix, class_="fix") if finding.fix else None
    return el("article", title, where, el("p", finding.evidence), fix)


def _machines(nodes: Iterable[NodeFacts]) -> Iterator[Child]:
    every = list(nodes)
    if not every:
        yield el("p", "No machine could be read.")
        return
    yield table(("node", "machine", "system", "kernel", "CPUs", "memory, GiB"), (_machine(node) for node in every))
    heads = ("node", "Python", "torch", "NCCL", "Ray", "vLLM", "NVIDIA driver", "GPUs", "HCAs")
    yield table(heads, (_stack(node) for node in every))


def _machine(node: NodeFacts) -> tuple[str, ...]:
    told = node.machine
    memory = told.memory.get("MemTotal")
    size = "-" if memory is None else f"{memory / GIB:.0f}"
    cpus = "-" if told.cpus is None else str(told.cpus)
    return node.name, told.product or "-", told.os or "-", told.kernel or "-", cpus, size


def _stack(node: NodeFacts) -> tuple[str, ...]:
    stack = node.stack
    names = [gpu.name for gpu in node.gpu.gpus or ()]
    gpus = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
    hcas = ", ".join(device.name for device in node.rdma.devices or ())
    versions = (stack.python, stack.torch, stack.nccl, stack.ray, stack.vllm, node.gpu.driver)
    return node.name, *(version or "-" for version in versions), gpus or "none", hcas or "none"


# ---- plan, proof, bench, events


def _fabric(fabric: Fabric, nccl: str) -> Iterator[Child]:
    order = f": {' - '.join(fabric.order)}" if fabric.order else ""
    yield el("p", f"{nccl}. {SHAPES[fabric.topology].capitalize()}{order}.")
    for node in fabric.nodes:
        yield from _planned(node)


def _planned(node: NodeFabric) -> Iterator[Child]:
    yield el("h3", node.name)
    if node.hcas:
        rows = (
            (
                _mark(row.device, "ok" if row.chosen else "dim"),
                row.state or "-",
                row.link_layer or "-",
                _number(row.rate_gbps),
                row.netdev or "-",
                row.ipv4 or "-",
                "-" if row.gid_index is None else f"{row.gid_index} ({row.gid_type or '?'})",
                row.why,
            )
            for row in node.hcas
        )
        yield table(("HCA", "state", "link", "Gb/s", "interface", "IPv4", "GID", "why"), rows)
    if node.settings:
        settings = ((el("code", f"{one.name}={one.value}"), one.reason, one.undo) for one in node.settings)
        yield table(("setting", "reason", "undo"), settings)
    yield from (el("p", f"Note: {note}", class_="dim") for note in node.notes)


def _proof(contents: Contents) -> Iterator[Child]:
    if contents.proof is not None:
        yield from _proven(contents.proof)
    else:
        yield el(
            "p",
            "No traffic was driven for this page. ",
            el("code", "shoal prove --json > FILE"),
            ", then --proof FILE.",
        )
    nodes = contents.running.proofs if contents.running else ()
    processes = [(node.name, one) for node in nodes for one in node.processes]
    if processes:
        yield el("h3", "What NCCL said when the engine started")
        rows = (
            (
                name,
                "-" if one.rank is None else f"{one.rank} of {one.ranks}",
                one.network or "-",
                ", ".join(one.hcas) or "-",
                {True: "yes", False: "no", None: "-"}[one.gdr],
                "runs" if one.alive else "ended",
            )
            for name, one in processes
        )
        yield table(("node", "rank", "network", "HCAs", "GPUDirect", "process"), rows)


def _proven(found: Proof) -> Iterator[Child]:
    yield el(
        "p", _mark("proven" if found.proven else "not proven", "ok" if found.proven else "fail"), f" {found.words}"
    )
    if found.rows:
        yield table(prove_page.HEAD, prove_page.cells(found))


def _bench(name: str, found: Measured) -> Iterator[Child]:
    judged = measure.verdict(found, link_rate(found))
    kind = {True: "ok", False: "fail", None: "dim"}[judged.good]
    yield el("h3", name)
    yield el("p", _mark({True: "good", False: "slow", None: "measured"}[judged.good], kind), f" {judged.words}")
    if found.rows:
        yield picture(found)
    heads = ("collective", "bytes", "microseconds", "algbw, GB/s", "busbw, GB/s")
    rows = (
        (row.name, str(row.size), f"{row.seconds * 1e6:.1f}", f"{row.algbw:.3f}", f"{row.busbw:.3f}")
        for row in found.rows
    )
    yield el("details", el("summary", "Numbers"), table(heads, rows))


def _events(events: tuple[Entry, ...]) -> Iterator[Child]:
    if not events:
        yield el("p", "None in the last day.")
        return
    levels = {"warn": "warn", "error": "fail"}
    rows = (
        (
            el("time", time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(one.time))),
            one.node,
            _mark(one.kind, levels.get(one.level, "dim")),
            one.words,
        )
        for one in events
    )
    yield table(("UTC", "node", "event", "what happened"), rows)
