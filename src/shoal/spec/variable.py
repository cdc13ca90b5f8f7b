"""One variable of the environment: what it may hold, who reads it, and what is wrong with a value. Pure."""

import ipaddress
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "text",
    "integer",
    "number",
    "switch",
    "flag",
    "choice",
    "address",
    "endpoint",
    "port",
    "path",
    "names",
    "nodes",
    "secret",
]
Reader = Literal["agent", "serve", "compose", "nccl", "gloo", "ucx", "ray", "vllm", "cuda", "hub", "nothing"]


@dataclass(frozen=True)
class Variable:
    """One row of the table. A default of None means required; ``field`` is the settings' attribute, if it is one."""

    name: str
    kind: Kind
    default: str | None
    readers: tuple[Reader, ...]
    meaning: str
    field: str = ""
    low: float | None = None
    high: float | None = None
    above: float | None = None  # more than this
    choices: tuple[str, ...] = ()
    auto: bool = False  # `auto` may be written for nothing
    per_node: bool = False
    since: str = ""

    @property
    def secret(self) -> bool:
        """Whether it is never logged, shown or handed from node to node."""
        return self.kind == "secret"

    @property
    def reader(self) -> Literal["agent", "serve", "both", "others"]:
        """Which of shoal's two programs reads it."""
        agent, serve = "agent" in self.readers, "serve" in self.readers
        if agent and serve:
            return "both"
        return "agent" if agent else "serve" if serve else "others"

    @property
    def type(self) -> str:
        """What it may hold, in words."""
        words = _choices(self) if self.kind == "choice" else WORDS[self.kind] + _bounds(self)
        return f"{words}, or `auto`" if self.auto else words


WORDS: dict[Kind, str] = {
    "text": "text",
    "integer": "integer",
    "number": "number",
    "switch": "`0` or `1`",
    "flag": "`0` or `1`",
    "choice": "",
    "address": "IP address",
    "endpoint": "`ADDRESS:PORT`",
    "port": "integer, 1 to 65535",
    "path": "path",
    "names": "list of names",
    "nodes": "`ADDRESS[:GPUS],...`",
    "secret": "secret",
}


def _choices(row: Variable) -> str:
    return " or ".join(f"`{choice}`" for choice in row.choices)


def _bounds(row: Variable) -> str:
    if row.low is not None and row.high is not None:
        return f", {row.low:g} to {row.high:.0f}"
    if row.low is not None:
        return f", at least {row.low:g}"
    return f", more than {row.above:g}" if row.above is not None else ""


def wrong(row: Variable, value: str) -> str:
    """What is wrong with a value that is not empty, or nothing."""
    if row.auto and value.lower() == "auto":
        return ""
    return _CHECKS[row.kind](row, value) if row.kind in _CHECKS else ""


def _number(row: Variable, value: str) -> str:
    try:
        number = float(value)
    except ValueError:
        return "it is no number"
    return _outside(row, number) if math.isfinite(number) else "it is no finite number"


def _integer(row: Variable, value: str) -> str:
    return _outside(row, int(value)) if re.fullmatch(r"[+-]?[0-9]{1,18}", value) else "it is no integer"


def _outside(row: Variable, number: float) -> str:
    if row.above is not None and number <= row.above:
        return f"it is not more than {row.above:g}"
    if row.low is not None and number < row.low:
        return f"it is less than {row.low:g}"
    return f"it is more than {row.high:.0f}" if row.high is not None and number > row.high else ""


def _switch(row: Variable, value: str) -> str:
    del row
    return "" if value in {"0", "1"} else "it is neither 0 nor 1"


def _flag(row: Variable, value: str) -> str:
    return "" if value.lower() in {"true", "false"} else _switch(row, value)


def _choice(row: Variable, value: str) -> str:
    return "" if value in row.choices else f"it is none of {', '.join(row.choices)}"


def is_address(value: str) -> bool:
    """Whether this is an IP address."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _address(row: Variable, value: str) -> str:
    del row
    return "" if is_address(value) else "it is no IP address"


def is_port(value: str) -> bool:
    """Whether this is the number of a port."""
    return bool(re.fullmatch(r"[0-9]{1,5}", value)) and 0 < int(value) < 65536


def _port(row: Variable, value: str) -> str:
    del row
    return "" if is_port(value) else "it is no port number"


def _endpoint(row: Variable, value: str) -> str:
    del row
    host, colon, port = value.rpartition(":")
    if not colon or (is_address(value) and not host.startswith("[")):
        return "it has no port"
    return "" if host and "/" not in host and is_port(port) else "it is not ADDRESS:PORT"


def _names(row: Variable, value: str) -> str:
    del row
    bad = [name for item in value.split(",") if (name := item.strip()) and not re.fullmatch(r"[A-Za-z_]\w*", name)]
    return f"{bad[0]!r} is no name of a variable" if bad else ""


def _nodes(row: Variable, value: str) -> str:
    del row
    for item in filter(None, map(str.strip, value.split(","))):
        address, _, gpus = item.partition(":")
        if not is_address(address) or not re.fullmatch(r"[0-9]{0,9}", gpus):
            return f"{item!r} is not ADDRESS[:GPUS]"
    return ""


_CHECKS: dict[Kind, Callable[[Variable, str], str]] = {
    "integer": _integer,
    "number": _number,
    "switch": _switch,
    "flag": _flag,
    "choice": _choice,
    "address": _address,
    "endpoint": _endpoint,
    "port": _port,
    "names": _names,
    "nodes": _nodes,
}
