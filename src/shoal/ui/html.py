"""HTML out of elements: what is text stays text, whoever wrote it.

Every text and every attribute is escaped by the serialiser; secrets, and characters that no page may hold, go before.
The page runs no script and loads nothing: its content security policy says so, should anything have slipped through.
"""

import re
from collections.abc import Iterable
from xml.etree import ElementTree as ET

from shoal.spec.redact import Redactor

ILLEGAL = re.compile("[^\t\n\r\u0020-\u007e\u00a0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Marks that turn the order of letters around: in a log they make a line look like another one.
TURNING = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
Child = ET.Element | str | None


def el(tag: str, *children: Child, **attributes: str) -> ET.Element:
    """An element; ``class_`` stands for ``class``, and ``_`` in a name for ``-``. A child of None is left out."""
    made = ET.Element(tag, {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()})
    for child in children:
        if isinstance(child, str):
            _append(made, child)
        elif child is not None:
            made.append(child)
    return made


def _append(parent: ET.Element, text: str) -> None:
    if len(parent):
        parent[-1].tail = (parent[-1].tail or "") + text
    else:
        parent.text = (parent.text or "") + text


def table(heads: Iterable[str], rows: Iterable[Iterable[Child]], *, class_: str = "") -> ET.Element:
    """A table that may be scrolled sideways where the page is narrow."""
    head = el("thead", el("tr", *(el("th", text, scope="col") for text in heads)))
    body = el("tbody", *(el("tr", *(el("td", cell) for cell in row)) for row in rows))
    return el("div", el("table", head, body, class_=class_), class_="wide")


def page(title: str, style: str, body: Iterable[Child], secrets: Iterable[str]) -> str:
    """The whole document."""
    root = el(
        "html",
        el(
            "head",
            el("meta", charset="utf-8"),
            el("meta", http_equiv="Content-Security-Policy", content=POLICY),
            el("meta", name="viewport", content="width=device-width, initial-scale=1"),
            el("meta", name="referrer", content="no-referrer"),
            el("title", title),
        ),
        el("body", *body),
        lang="en",
    )
    redactor = Redactor(secrets)
    for element in root.iter():
        element.text, element.tail = _clean(element.text, redactor), _clean(element.tail, redactor)
        for name, value in element.attrib.items():
            element.set(name, _clean(value, redactor) or "")
    root[0].append(el("style", style))  # ours, and as it is: a style's text is not escaped
    return "<!doctype html>\n" + ET.tostring(root, encoding="unicode", method="html") + "\n"


def _clean(text: str | None, redactor: Redactor) -> str | None:
    return TURNING.sub("\ufffd", ILLEGAL.sub("\ufffd", redactor.text(text))) if text else text
