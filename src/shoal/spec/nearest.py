"""The nearest valid name, for errors that help."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], *, count: int = 3) -> list[str]:
    """Up to ``count`` known names that look like ``name``, best first."""
    return difflib.get_close_matches(name, sorted(known), n=count, cutoff=0.5)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``did you mean "a" or "b"?``, or the list of known names where none is near."""
    names = sorted(known)
    close = nearest(name, names)
    if close:
        return "did you mean " + " or ".join(f'"{item}"' for item in close) + "?"
    return "known: " + ", ".join(names)
