"""A proof on a terminal: one sentence, then a line for each HCA. Plain text, for images without rich."""

from collections.abc import Sequence

from shoal.bench.proof import NodeVerdict, Proof, Row
from shoal.ui.sizes import size_label

HEAD = ("node", "HCA", "rail", "expected", "seen", "share", "transport", "GDR", "verdict")


def page(found: Proof) -> str:
    """The sentence, the table, and what an estimate is where there is one."""
    sentence = f"{'proven' if found.proven else 'not proven'}: {found.words}"
    if not found.rows:
        return sentence
    lines = [sentence, "", *columns([HEAD, *cells(found)])]
    if any(row.estimate for row in found.rows):
        lines.append("~ packets times the MTU: the device counts no bytes, and this is an upper bound")
    return "\n".join(lines)


def cells(found: Proof) -> list[tuple[str, ...]]:
    """A row of words for each HCA, under :data:`HEAD`."""
    nodes = {node.name: node for node in found.nodes}
    return [_row(row, nodes[row.node]) for row in found.rows]


def _row(row: Row, node: NodeVerdict) -> tuple[str, ...]:
    sign = "~" if row.estimate else ""
    return (
        row.node,
        row.hca,
        row.rail or "-",
        "-" if row.expected is None else size_label(row.expected),
        "-" if row.seen is None else f"{sign}{size_label(row.seen)}",
        "-" if row.share is None else f"{row.share:.0%}",
        node.transport or "-",
        {True: "yes", False: "no", None: "-"}[node.gdr],
        row.verdict,
    )


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as text, each column as wide as its widest word."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{word:<{width}}" for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]
