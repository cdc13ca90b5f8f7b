#!/usr/bin/env python3
"""Write docs/reference from the sources: each page is made of the tables that the program itself uses.

python tools/gen_docs.py writes the pages; with --check it writes nothing, and ends with code 1 where one is stale.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pages.checks import checks
from pages.cluster import cluster_page, cluster_schema
from pages.commands import cli_page, exit_codes
from pages.compose import compose_page
from pages.environment import environment, ports
from pages.fabric import fabric_page
from pages.live import live_page, metrics_page
from pages.models import models
from pages.signatures import signatures
from pages.status import schema, status_page

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path("docs/reference")

PAGES: Mapping[str, Callable[[], str]] = {
    "checks.md": checks,
    "cli.md": cli_page,
    "cluster.md": cluster_page,
    "cluster.schema.json": cluster_schema,
    "compose.md": compose_page,
    "environment.md": environment,
    "exit-codes.md": exit_codes,
    "fabric.md": fabric_page,
    "live.md": live_page,
    "metrics.md": metrics_page,
    "models.md": models,
    "ports.md": ports,
    "signatures.md": signatures,
    "status.md": status_page,
    "status.schema.json": schema,
}


def stale(root: Path = ROOT) -> dict[Path, str]:
    """By path below ``root``: pages that are missing or differ from what the sources say now, as they should be."""
    out = {}
    for name, make in PAGES.items():
        file, text = FOLDER / name, make()
        if not (root / file).is_file() or (root / file).read_text(encoding="utf-8") != text:
            out[file] = text
    return out


def main(argv: Sequence[str]) -> int:
    """Write what is stale, or name it; the exit code."""
    parser = argparse.ArgumentParser(prog="gen_docs.py", description="Write docs/reference from the sources.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a page is stale")
    check = parser.parse_args(argv).check
    pages = stale()
    for file, text in pages.items():
        print(f"{file} is stale: make docs" if check else f"wrote {file}")
        if not check:
            (ROOT / file).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / file).write_text(text, encoding="utf-8")
    return 1 if check and pages else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
