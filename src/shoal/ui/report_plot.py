"""A fabric bench as a picture in a page: bandwidth over message size, beside the link's rate. SVG, no script."""

import math
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree as ET

from shoal.bench.measure import Measured, Row, link_rate
from shoal.ui.html import el
from shoal.ui.sizes import size_label

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, RIGHT = 720, 300, 56, 12, 40, 128
COLOURS = ("#0b6e99", "#c2571a", "#4b7f2b", "#7a4b9a")


def picture(found: Measured) -> ET.Element:
    """Each collective as a line: sizes to the right, by powers of two, and GB/s upward."""
    link = link_rate(found)
    most = _round(max([*(row.busbw for row in found.rows), (link or 0) / 8, 1e-9]) * 1.02)
    names = tuple(dict.fromkeys(row.name for row in found.rows))
    sizes = sorted({row.size for row in found.rows})
    parts = [*_grid(sizes, most), *_lines(found.rows, names, sizes, most)]
    if link:
        parts += _link(link / 8, most)
    label = f"bus bandwidth of {', '.join(names)} over message size"
    return el("svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=label, class_="plot")


def _round(value: float) -> float:
    """The next value above whose quarters are easy to read."""
    unit = 10.0 ** math.floor(math.log10(value))
    return next(step * unit for step in (1, 2, 4, 6, 8, 10) if step * unit >= value)


def _x(size: int, sizes: Sequence[int]) -> float:
    low, high = math.log2(sizes[0]), math.log2(sizes[-1])
    share = (math.log2(size) - low) / (high - low) if high > low else 0.5
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _y(value: float, most: float) -> float:
    return HEIGHT - BOTTOM - value / most * (HEIGHT - TOP - BOTTOM)


def _text(x: float, y: float, words: str, **more: str) -> ET.Element:
    return el("text", words, x=f"{x:.1f}", y=f"{y:.1f}", **more)


def _line(x1: float, y1: float, x2: float, y2: float, **more: str) -> ET.Element:
    return el("line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", **more)


def _grid(sizes: Sequence[int], most: float) -> Iterator[ET.Element]:
    for step in range(5):
        value = most * step / 4
        y = _y(value, most)
        yield _line(LEFT, y, WIDTH - RIGHT, y, class_="grid")
        yield _text(LEFT - 6, y + 4, f"{value:.3g}", text_anchor="end")
    for size in sizes[:: max(1, len(sizes) // 6)]:
        yield _text(_x(size, sizes), HEIGHT - BOTTOM + 18, size_label(size), text_anchor="middle")
    yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, "message size", text_anchor="middle")
    yield _text(LEFT + 4, TOP + 4, "GB/s")


def _lines(rows: Sequence[Row], names: Sequence[str], sizes: Sequence[int], most: float) -> Iterator[ET.Element]:
    for number, name in enumerate(names):
        colour = COLOURS[number % len(COLOURS)]
        points = [(_x(row.size, sizes), _y(row.busbw, most)) for row in rows if row.name == name]
        yield el("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), stroke=colour, class_="line")
        for x, y in points:
            yield el("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="2.5", fill=colour)
        y = TOP + 24 + 18 * number
        yield _line(WIDTH - RIGHT + 10, y, WIDTH - RIGHT + 28, y, stroke=colour, class_="line")
        yield _text(WIDTH - RIGHT + 34, y + 4, name)


def _link(rate: float, most: float) -> Iterator[ET.Element]:
    y = _y(rate, most)
    yield _line(LEFT, y, WIDTH - RIGHT, y, class_="limit")
    yield _text(WIDTH - RIGHT + 4, y + 4, f"the link: {rate:.3g}")
