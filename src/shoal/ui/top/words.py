"""What the terminal view says of a cluster: texts and table rows out of the document. Pure; nothing here is markup."""

import time
from collections import deque
from collections.abc import Iterable, Sequence

from rich.text import Text

from shoal.state.live import ClusterLive, FindingLive, GpuLive, HcaLive, NodeLive, RailLive, ServingLive
from shoal.state.status import EngineStatus

COLOURS = {"good": "green", "busy": "cyan", "warn": "yellow", "bad": "red"}
MARKS = {"good": "✓", "busy": "…", "warn": "!", "bad": "✗"}  # never colour alone
LEVELS = {"up": "good", "suspect": "warn", "draining": "warn", "lost": "bad", "failed": "bad", "stopped": "bad"}
EVENT_COLOURS = {"warn": "yellow", "error": "red"}
BARS = "▁▂▃▄▅▆▇█"
GIB = 1 << 30
UNTOLD = "-"
NODE_COLUMNS = ("", "node", "role", "address", "state", "GPUs", "GPU use", "GPU memory", "°C", "W", "says")
RAIL_COLUMNS = ("", "node", "HCA", "netdev", "state", "link", "in Gb/s", "out Gb/s", "errors that moved")

Row = tuple[Text, ...]


def verdict(live: ClusterLive) -> Text:
    """The first line: how it stands, and what to do."""
    told = live.verdict
    if told is None:
        return Text(f"cluster {live.status.cluster}: {live.status.state.value}", style="bold")
    text = Text(f"{MARKS[told.level]} {plain(told.words)}", style=f"bold {COLOURS[told.level]}")
    return text.append(f"\n  {plain(told.fix)}", style="not bold default") if told.fix else text


def plain(words: str) -> str:
    """Words of a node, a log or a model on one line, without anything that a terminal would obey."""
    return "".join(letter if letter.isprintable() else " " for letter in words)


def engine(status: EngineStatus | None, serving: ServingLive | None, rates: Sequence[float | None]) -> Text:
    """The engine: state and phases, then what it does for its users."""
    if status is None:
        return Text("no engine")
    text = Text()
    text.append("engine ", style="bold").append(f"{status.state.value}  {plain(status.model)}")
    if status.phases:
        took = "  ".join(f"{name} {seconds:.1f} s" for name, seconds in status.phases.items())
        text.append(f"\nphases {took}" + (f"  now: {status.phase}" if status.phase else ""))
    if status.detail:
        text.append(f"\n{plain(status.detail)}")
    if status.transport is not None:
        style = "yellow" if status.transport.degraded else ""
        text.append(f"\ntransport {status.transport.kind.value}: {plain(status.transport.detail)}", style=style)
    if serving is not None:
        text.append("\n").append(_served(serving)).append(f"\n{sparkline(rates)}", style="cyan")
    return text


def _served(serving: ServingLive) -> str:
    tokens = f"{_number(serving.tokens_per_s, '.1f')} tokens/s (prompt {_number(serving.prompt_tokens_per_s, '.1f')})"
    first = f"first token {_ms(serving.ttft_p50_s)} / {_ms(serving.ttft_p95_s)}"
    between = f"between {_ms(serving.itl_p50_s)} / {_ms(serving.itl_p95_s)} (p50 / p95)"
    requests = f"{_number(serving.requests_running, 'd')} running, {_number(serving.requests_waiting, 'd')} waiting"
    return "   ".join((tokens, first, between, requests, f"KV cache {_percent(serving.kv_cache_use)}"))


def sparkline(values: Sequence[float | None]) -> str:
    """One character a value, against the largest of them; a gap where nothing was told."""
    top = max((value for value in values if value is not None), default=0.0)
    if top <= 0:
        return BARS[0] * len(values)
    return "".join(" " if value is None else BARS[round(value / top * (len(BARS) - 1))] for value in values)


def node_row(live: NodeLive) -> Row:
    """One line of the table of nodes, in the order of :data:`NODE_COLUMNS`."""
    node, level = live.node, LEVELS.get(live.node.state.value, "busy")
    worst = sum(finding.status == "FAIL" for finding in live.findings)
    says = plain(node.detail or (f"{worst} check(s) failed" if worst else ""))
    cells = (
        plain(node.name),
        node.role,
        plain(node.address),
        node.state.value,
        str(node.gpus),
        _percent(_mean(gpu.utilisation for gpu in live.gpus)),
        _memory(live.gpus),
        _number(_most(gpu.temperature_celsius for gpu in live.gpus), ".0f"),
        _number(_sum(gpu.power_watts for gpu in live.gpus), ".0f"),
        says,
    )
    style = COLOURS[level] if level != "good" else ""
    return (Text(MARKS[level], style=COLOURS[level]), *(Text(cell, style=style) for cell in cells))


def rail_row(node: str, hca: HcaLive, rail: RailLive | None) -> Row:
    """One line of the table of rails, in the order of :data:`RAIL_COLUMNS`."""
    well = not hca.state or hca.state.endswith("ACTIVE")
    moved = rail.errors_moved if rail else {}
    level = "bad" if not well else "warn" if moved else "good"
    cells = (
        plain(node),
        f"{plain(hca.device)}/{hca.port}",
        plain(hca.netdev) or UNTOLD,
        plain(hca.state) or UNTOLD,
        f"{_number(hca.rate_gbps, 'g')} {plain(hca.link_layer)}",
        _number(rail.received_gbps if rail else None, ".2f"),
        _number(rail.sent_gbps if rail else None, ".2f"),
        ", ".join(f"{plain(name)} +{count}" for name, count in moved.items()),
    )
    style = COLOURS[level] if level != "good" else ""
    return (Text(MARKS[level], style=COLOURS[level]), *(Text(cell, style=style) for cell in cells))


def rail_rows(live: ClusterLive) -> list[Row]:
    """Every port of every HCA."""
    rates = {(rail.node, rail.device, rail.port): rail for rail in live.rails}
    return [
        rail_row(node.node.name, hca, rates.get((node.node.name, hca.device, hca.port)))
        for node in live.nodes
        for hca in node.hcas
    ]


def findings(live: ClusterLive) -> Text:
    """Findings with their fixes, failures first."""
    found = [(node.node.name, one) for node in live.nodes for one in node.findings]
    if not found:
        return Text("no check of any agent has found anything")
    text = Text()
    for name, one in sorted(found, key=lambda item: item[1].status != "FAIL"):
        text.append(_finding(name, one)).append("\n")
    return text


def _finding(name: str, found: FindingLive) -> Text:
    style = COLOURS["bad"] if found.status == "FAIL" else COLOURS["warn"]
    text = Text(f"{found.status} ", style=style).append(f"{plain(name)}  {found.id}  {plain(found.title)}")
    if found.evidence:
        text.append(f"\n     {plain(found.evidence)}", style="dim")
    if found.fix:
        text.append(f"\n     fix: {plain(found.fix)}")
    return text


def events(live: ClusterLive) -> Text:
    """The journal's end, the newest first."""
    text = Text()
    for event in reversed(live.events):
        at = time.strftime("%H:%M:%S", time.localtime(event.at))
        style = EVENT_COLOURS.get(event.level, "")
        text.append(f"{at}  {plain(event.node):<10} {plain(event.kind):<10} {plain(event.text)}\n", style=style)
    return text if live.events else Text("nothing happened yet")


class Rates:
    """The last tokens per second, for the line of them."""

    def __init__(self, most: int = 60) -> None:
        self._values: deque[float | None] = deque(maxlen=most)

    def add(self, live: ClusterLive) -> None:
        """One reading more."""
        self._values.append(live.serving.tokens_per_s if live.serving else None)

    def all(self) -> list[float | None]:
        """The readings, the newest last."""
        return list(self._values)


def _number(value: float | None, form: str) -> str:
    return UNTOLD if value is None else format(value, form)


def _ms(value: float | None) -> str:
    return UNTOLD if value is None else f"{value * 1000:.0f} ms"


def _percent(value: float | None) -> str:
    return UNTOLD if value is None else f"{value:.0%}"


def _memory(gpus: Sequence[GpuLive]) -> str:
    used, total = _sum(gpu.memory_used_bytes for gpu in gpus), _sum(gpu.memory_total_bytes for gpu in gpus)
    return UNTOLD if used is None or total is None else f"{used / GIB:.0f} of {total / GIB:.0f} GiB"


def _told(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _sum(values: Iterable[float | None]) -> float | None:
    told = _told(values)
    return sum(told) if told else None


def _mean(values: Iterable[float | None]) -> float | None:
    told = _told(values)
    return sum(told) / len(told) if told else None


def _most(values: Iterable[float | None]) -> float | None:
    return max(_told(values), default=None)
