"""Markdown: cells, code, tables and whole pages."""

from collections.abc import Iterable, Sequence

MADE = "<!-- Made by tools/gen_docs.py. Change the source that it reads, then: make docs -->\n"


def cell(text: str) -> str:
    """Text as one table cell."""
    return text.replace("|", "\\|").replace("\n", " ").strip()


def code(text: str) -> str:
    """Text as inline code; nothing for an empty one."""
    return f"`{text}`" if text else ""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell(text) for text in line) + " |" for line in lines) + "\n"


def page(title: str, *parts: str) -> str:
    """A whole page out of its parts."""
    return "\n".join((MADE + f"\n# {title}\n", *parts))
