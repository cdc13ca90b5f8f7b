"""How an explanation is shown: a page for people, a document for programs."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from shoal.explain.verdict import Benign, Evidence, Explanation
from shoal.nccl.rank import Rank

STYLE = {"failed": "bold red", "degraded": "bold yellow", "ok": "bold green", "empty": "bold"}
MOST_RANKS = 32


def document(explanation: Explanation) -> dict[str, Any]:
    """The explanation as plain values. Ranks also say what follows from their report: rdma and gdr."""
    return {
        "schema_version": 1,
        "status": explanation.status,
        "verdict": explanation.verdict,
        "root_cause": explanation.root_cause,
        "confidence": explanation.confidence,
        "fix": explanation.fix,
        "confirm": explanation.confirm,
        "evidence": [_line(line) for line in explanation.evidence],
        "ranks": [_rank(rank) for rank in explanation.ranks],
        "benign": [_line(benign) for benign in explanation.benign],
        "lines": explanation.lines,
    }


def _line(line: Evidence | Benign) -> dict[str, Any]:
    return {"file": line.source} | {name: value for name, value in asdict(line).items() if name != "source"}


def _rank(rank: Rank) -> dict[str, Any]:
    return {
        "file": rank.source,
        "host": rank.host,
        "pid": rank.pid,
        "rank": rank.rank,
        "nranks": rank.nranks,
        "nodes": rank.nodes,
        "version": rank.version,
        "network": rank.network,
        "rdma": rank.rdma,
        "transports": rank.channels,
        "hcas": [asdict(hca) for hca in rank.hcas.values()],
        "merged": rank.merged,
        "gdr": rank.gdr,
        "plugin": rank.plugin,
        "plugin_missing": rank.plugin_missing,
        "oob": rank.oob,
        "environment": rank.env,
        "warnings": [{"line": number, "text": text} for number, text in rank.warnings],
        "complete": rank.complete,
    }


def show(console: Console, explanation: Explanation) -> None:
    """The page: verdict, fix, evidence, ranks, what is benign."""
    console.print(Text.assemble((explanation.status, STYLE[explanation.status]), ": ", explanation.verdict))
    for name, text in (("cause", explanation.root_cause), ("fix", explanation.fix), ("check", explanation.confirm)):
        if text:
            console.print(Text.assemble((f"  {name:<6}", "bold"), text))
    for line in explanation.evidence:
        count = f" ({line.count} times)" if line.count > 1 else ""
        console.print(Text.assemble("  ", (f"{line.source}:{line.line}", "cyan"), f" {line.role}{count}"))
        console.print(Text(f"    {line.text}"), soft_wrap=True)
    if explanation.ranks:
        console.print(_table(explanation.ranks))
    if explanation.benign:
        names = ", ".join(benign.signature.partition(".")[2] for benign in explanation.benign)
        console.print(Text(f"normal, though it looks bad: {names}"))


def _table(ranks: Sequence[Rank]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("process", "NCCL", "network", "channels", "devices", "GPUDirect"):
        table.add_column(name, overflow="fold")
    for rank in ranks[:MOST_RANKS]:
        channels = ", ".join(f"{count} {kind}" for kind, count in rank.channels.items())
        table.add_row(
            Text(rank.name),
            Text(rank.version.partition("+")[0]),
            Text(rank.network),
            Text(channels),
            Text(", ".join(_device(rank, name) for name in rank.hcas)),
            {True: "yes", False: "no", None: ""}[rank.gdr],
        )
    if len(ranks) > MOST_RANKS:
        table.add_row(f"and {len(ranks) - MOST_RANKS} more")
    return table


def _device(rank: Rank, name: str) -> str:
    hca = rank.hcas[name]
    speed = f" {hca.speed // 1000} Gb/s" if hca.speed else ""
    gid = f" GID {hca.gid_index} {hca.gid}" if hca.gid else ""
    return f"{name}:{hca.port}/{hca.layer}{speed}{gid}"
