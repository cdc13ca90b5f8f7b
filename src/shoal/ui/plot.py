"""Pictures of a fabric bench: bandwidth over size against the link's rate, and the pairs as a heat map."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from shoal.bench.measure import Measured
from shoal.ui.sizes import size_label

COLOURS = {"all_reduce": "#0b6e99", "all_gather": "#c2571a", "reduce_scatter": "#4b7f2b", "send_recv": "#7a4b9a"}
MARKS = {"all_reduce": "o", "all_gather": "s", "reduce_scatter": "^", "send_recv": "D"}
MOST_NUMBERS = 16  # of ranks: more numbers in the heat map would not be read


def draw(found: Measured, link_gbps: float | None, file: Path) -> None:
    """Write the picture; the file's ending says which kind (.svg, .png or .pdf)."""
    wide = bool(found.pairs)
    figure = Figure(figsize=(12 if wide else 7, 4.8), layout="constrained")
    axes = figure.subplots(1, 2 if wide else 1, squeeze=False)[0]
    _bandwidth(axes[0], found, link_gbps)
    if wide:
        _pairs(figure, axes[1], found)
    addresses = len({rank.address for rank in found.ranks})
    figure.suptitle(f"{len(found.ranks)} ranks on {addresses} nodes, {found.backend}")
    figure.savefig(file)


def _bandwidth(axes: Axes, found: Measured, link_gbps: float | None) -> None:
    for name in dict.fromkeys(row.name for row in found.rows):
        rows = [row for row in found.rows if row.name == name]
        points = [row.size for row in rows], [row.busbw for row in rows]
        axes.plot(*points, color=COLOURS[name], marker=MARKS[name], markersize=5, label=name.replace("_", "-"))
    if link_gbps:
        axes.axhline(link_gbps / 8, color="#888888", linestyle="--", label=f"link, {link_gbps:g} Gb/s")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: size_label(size)))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("size")
    axes.set_ylabel("bus bandwidth, GB/s")
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.legend(frameon=False)


def _pairs(figure: Figure, axes: Axes, found: Measured) -> None:
    ranks = len(found.ranks)
    table = [[float("nan")] * ranks for _ in range(ranks)]
    for pair in found.pairs:
        table[pair.source][pair.target] = pair.gbps
    picture = axes.imshow(table, cmap="viridis", vmin=0)
    axes.set_xticks(range(ranks), [str(rank) for rank in range(ranks)])
    axes.set_yticks(range(ranks), [f"{at}  {rank.address}" for at, rank in enumerate(found.ranks)])
    axes.set_xlabel("to rank")
    axes.set_ylabel("from rank")
    top = max(pair.gbps for pair in found.pairs)
    for pair in found.pairs if ranks <= MOST_NUMBERS else ():
        colour = "white" if pair.gbps < top * 0.6 else "black"
        axes.text(pair.target, pair.source, f"{pair.gbps:.2f}", ha="center", va="center", color=colour, fontsize=9)
    figure.colorbar(picture, ax=axes, label="GB/s")
