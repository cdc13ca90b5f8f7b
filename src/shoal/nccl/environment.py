"""The environment as NCCL reads it: C's own number parsing, and files below the variables."""

import re
from collections.abc import Mapping

_STRTOLL = re.compile(r"\s*([+-]?)(0[xX][0-9a-fA-F]+|[0-9]+)")
_ATOI = re.compile(r"\s*[+-]?[0-9]+")
_INT64 = range(-(2**63), 2**63)


def effective(env: Mapping[str, str] | None, conf: Mapping[str, str] | None = None) -> dict[str, str]:
    """What NCCL finds: its configuration files, and the environment over them.

    Empty variables are as good as unset, and ``auto`` is shoal's word for "not set by me".
    """
    merged = {**(conf or {}), **(env or {})}
    return {name: value for name, value in merged.items() if value.strip().lower() not in {"", "auto"}}


def integer(text: str | None, default: int) -> int:
    """An integer as NCCL reads it: ``strtoll`` with base 0. Rubbish is 0, what does not fit is the default."""
    if not text:
        return default
    found = _STRTOLL.match(text)
    if found is None:
        return 0
    sign, digits = found[1], found[2]
    if digits[:2] in {"0x", "0X"}:
        number = int(digits, 16)
    elif digits.startswith("0"):
        # Octal ends at the first digit that is none: 08 is 0.
        number = int(re.match("0[0-7]*", digits)[0], 8)  # type: ignore[index]
    else:
        number = int(digits) if len(digits) < 30 else 2**63
    number = -number if sign == "-" else number
    return number if number in _INT64 else default


def atoi(text: str) -> int:
    """A decimal number as C's ``atoi`` reads it: rubbish is 0."""
    found = _ATOI.match(text)
    return int(found[0]) if found and len(found[0]) < 12 else 0
