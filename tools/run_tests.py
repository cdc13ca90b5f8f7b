"""Run the tests, cheapest first: checks, unit, then the levels with real parts, a folder each.

``SHOAL_TEST_ALL=1`` makes a skipped test a failure (tests/conftest.py). Further words go to pytest, for all levels in
one run: ``make test ARGS="-k stages"``.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import system_packages

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PYTEST = (sys.executable, "-m", "pytest", "-q")
# Levels with real parts, in their order: what they need is in CONTRIBUTING.md.
REAL = ("contract", "ray", "vm", "lab", "fleet", "web", "docker", "engine")

STEPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("format", (str(BIN / "ruff"), "format", "--check", "--quiet")),
    ("lint", (str(BIN / "ruff"), "check", "--quiet")),
    ("types", (str(BIN / "mypy"),)),
    ("layers", (str(BIN / "lint-imports"), "--no-cache")),
    ("unit", (*PYTEST, "-n", "auto", "tests/unit")),
    *((level, (*PYTEST, "-m", "not rehearsal", f"tests/{level}")) for level in REAL),
)


def run(name: str, argv: tuple[str, ...]) -> int:
    """One step; its exit code. Only a failing checker prints."""
    began = time.monotonic()
    quiet = name in {"format", "lint", "types", "layers"}
    print(f"== {name}", flush=True)
    done = subprocess.run(argv, cwd=ROOT, check=False, capture_output=quiet, text=True)
    if quiet and done.returncode:
        print(done.stdout + done.stderr)
    print(f"== {name}: {'ok' if done.returncode == 0 else 'FAILED'} in {time.monotonic() - began:.1f} s", flush=True)
    return done.returncode


def packages() -> None:
    """Debian packages for the tests with real parts. What stays missing is told, and its tests are skipped."""
    began = time.monotonic()
    print("== packages", flush=True)
    lacking, why = system_packages.install(BIN.parent / "apt.log")
    said = f"without {', '.join(lacking)} ({why})" if lacking else "ok"
    print(f"== packages: {said} in {time.monotonic() - began:.1f} s", flush=True)


def main(words: list[str]) -> int:
    """All steps; stops at the first that fails, so that its output is the last thing on the screen."""
    os.environ["PYTHONPATH"] = ""
    steps = [("chosen", (*PYTEST, *words))] if words else STEPS
    for name, argv in steps:
        if name == REAL[0]:
            packages()
        if run(name, argv):
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
