"""``shoal bench fabric``: the driver as a child, its lines as documents, the result as one JSON document."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from shoal.bench.measure import COLLECTIVES, SMALLEST, Measured, measured, sizes
from shoal.errors import ConfigError, NotRunning, PreconditionFailed, ShoalError
from shoal.host.local import LocalHost

SCHEMA = 1
PAIR_SIZE = 16 << 20
DEADLINE = 1800.0
EXIT_REFUSED, EXIT_NO_CLUSTER = 3, 4


@dataclass(frozen=True)
class Wish:
    """What is to be measured; sizes in bytes."""

    largest: int
    collectives: tuple[str, ...] = COLLECTIVES
    pair_size: int = PAIR_SIZE
    smallest: int = SMALLEST

    def spec(self) -> dict[str, Any]:
        """The same for the driver."""
        pair = min(self.pair_size, self.largest)
        return {
            "collectives": list(self.collectives),
            "sizes": sizes(self.largest, self.smallest),
            "pair_size": pair - pair % 4,
        }

    def steps(self, ranks: int) -> int:
        """How many rows will come."""
        return len(self.collectives) * len(sizes(self.largest, self.smallest)) + (
            ranks * (ranks - 1) if self.pair_size else 0
        )


def run(
    python: str, address: str, env: Mapping[str, str], wish: Wish, on_row: Callable[[dict[str, Any]], None]
) -> Measured:
    """Measure on the Ray cluster at ``address``; each document is handed over as it comes.

    Raises:
        NotRunning: there is no cluster at that address.
        PreconditionFailed: somebody holds the GPUs, or there is one rank only.
        ShoalError: a rank failed.
    """
    documents: list[dict[str, Any]] = []

    def line(text: str) -> None:
        if text.startswith("{"):
            documents.append(json.loads(text))
            on_row(documents[-1])

    argv = (python, "-m", "shoal.bench.driver", address, json.dumps(wish.spec()))
    result = LocalHost().stream(argv, timeout=DEADLINE, on_line=line, env=env)
    if result.code == 0:
        return measured(documents)
    last = documents[-1] if documents else {}
    why = str(last.get("why") or result.err.strip().rpartition("\n")[2] or f"code {result.code}")
    if result.code == EXIT_NO_CLUSTER:
        raise NotRunning("there is no Ray cluster to measure", why=why, fix="shoal up --local, or --address HOST:PORT")
    if result.code == EXIT_REFUSED:
        fix = "take the engine down first (the nodes stay up), or wait until it has ended"
        raise PreconditionFailed("the fabric cannot be measured now", why=why, fix=fix)
    raise ShoalError("the measurement failed", why=why, fix="shoal doctor   # what stands in the way")


def document(found: Measured, link_gbps: float | None) -> dict[str, Any]:
    """The result for files: what ``--json`` prints and ``--baseline`` keeps."""
    return {"schema": SCHEMA, "link_gbps": link_gbps, **asdict(found)}


def read_document(text: str, origin: str) -> Measured:
    """A kept result.

    Raises:
        ConfigError: it is none.
    """
    try:
        content = json.loads(text)
        known = {name: content[name] for name in ("backend", "ranks", "rows", "pairs", "unsupported")}
        return TypeAdapter(Measured).validate_python(known)
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise ConfigError(
            f"{origin} is no result of `shoal bench fabric`", why=str(error).splitlines()[0], fix="name another file"
        ) from error


def parse_size(text: str) -> int:
    """Bytes of ``64M``, ``1G``, ``1GiB`` or a plain number, at least 4096.

    Raises:
        ValueError: it is none of these.
    """
    word = text.strip().upper().removesuffix("B").removesuffix("I")
    units: Sequence[str] = ("K", "M", "G")
    scale = 1 << 10 * (units.index(word[-1]) + 1) if word[-1:] in units and word[-1:] else 1
    number = int(word[:-1] if scale > 1 else word) * scale
    if not 4096 <= number <= 1 << 34:
        raise ValueError(f"{text}: expected 4K to 16G")
    return number
