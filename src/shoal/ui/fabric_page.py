"""How a fabric plan is shown: for each node a table of its HCAs, and its settings with their reasons."""

from rich.console import Console
from rich.text import Text

from shoal.nccl.variables import dotted
from shoal.plan.fabric import Fabric, HcaPort, NodeFabric

SHAPES = {
    "single": "one node",
    "pair": "two nodes, joined",
    "switch": "every rail reaches every node",
    "rail-only": "every rail reaches every node, and no route leads from rail to rail",
    "ring": "cables from neighbour to neighbour",
    "partial": "no rail reaches every node",
    "none": "no RDMA",
}
HEADS = ("HCA", "state", "link", "Gb/s", "interface", "MTU", "IPv4", "GID")
LINKS = {"Ethernet": "RoCE", "InfiniBand": "IB"}
MARK = {True: ("yes", "green"), False: ("no", "red"), None: ("?", "yellow")}


def show(console: Console, fabric: Fabric, source: str) -> None:
    """The plan, for people."""
    _say(console, f"NCCL {dotted(fabric.nccl)} ({source})")
    order = f": {' - '.join(fabric.order)}" if fabric.order else ""
    _say(console, f"fabric: {fabric.topology}, {SHAPES[fabric.topology]}{order}")
    for node in fabric.nodes:
        _say(console, "")
        _node(console, node)


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _node(console: Console, node: NodeFabric) -> None:
    console.print(Text(node.name, style="bold"))
    for line in _table(node.hcas):
        console.print(line, soft_wrap=True)
    for row in node.hcas:
        _say(console, f"  {row.device}: {row.why}")
    if node.settings:
        _say(console, "  settings")
    for setting in node.settings:
        console.print(Text(f"    {setting.name}={setting.value}", style="bold"), soft_wrap=True)
        _say(console, f"      {setting.reason}; undo: {setting.undo}")
    for note in node.notes:
        _say(console, f"  note: {note}")


def _table(rows: tuple[HcaPort, ...]) -> list[Text]:
    """One line for each HCA, in columns; never cut short, however narrow the terminal is."""
    if not rows:
        return []
    cells = [HEADS, *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)) for line in cells]
    marks = [("use", "bold"), *(MARK[row.usable] for row in rows)]
    return [Text.assemble(f"  {line}  ", mark) for line, mark in zip(lines, marks, strict=True)]


def _cells(row: HcaPort) -> tuple[str, ...]:
    link = LINKS.get(row.link_layer or "", row.link_layer)
    name = row.device if row.port == 1 else f"{row.device}:{row.port}"
    known = (row.state, link, row.rate_gbps, row.netdev, row.mtu, row.ipv4, row.gid_index)
    words = ("-" if value is None else f"{value:g}" if isinstance(value, float) else str(value) for value in known)
    return (name, *words)
