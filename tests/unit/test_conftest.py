"""What ``SHOAL_TEST_ALL=1`` makes of a skipped test, and what a run finds free."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from tests.subnets import free_subnet

ROOT = Path(__file__).parents[2]
PASSES = "def test_p(): pass\n"
SKIPS = f"import pytest\n{PASSES}@pytest.mark.skip(reason='no: engine')\ndef test_s(): pass\n"
SKIPS_WHOLE = "import pytest\npytest.skip('no: engine', allow_module_level=True)\n"


def child(folder: Path, text: str, switch: str) -> tuple[int, list[str]]:
    """A run of pytest over one file: its exit status, and the lines that name a skipped test."""
    (folder / "test_it.py").write_text(text)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "SHOAL_TEST_ALL"))}
    argv = (
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        f"--rootdir={folder}",
        str(folder),
    )
    done = subprocess.run(
        argv, cwd=ROOT, env=env | {"SHOAL_TEST_ALL": switch}, capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, [line for line in done.stdout.splitlines() if "SHOAL_TEST_ALL" in line]


@pytest.mark.parametrize(
    ("text", "test"),
    [(SKIPS, "test_it.py::test_s"), (SKIPS_WHOLE, "test_it.py")],
)
def test_a_skip_fails_the_run(tmp_path: Path, text: str, test: str) -> None:
    """Where all must run, a skip of any kind ends the run with status 1, and is named with its reason."""
    assert child(tmp_path, text, "1") == (1, [f"SHOAL_TEST_ALL=1, and yet skipped: {test}: no: engine"])


def test_a_skip_is_allowed_elsewhere(tmp_path: Path) -> None:
    """Where not all must run, a skip passes without a word."""
    assert child(tmp_path, SKIPS, "") == (0, [])


def test_a_subnet_that_a_cut_off_run_left_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts of a test take the next one: a leftover of an earlier run is no failure of this one."""
    left = SimpleNamespace(address="192.168.118.254")
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {"shoal-84c5": [left]})
    assert [free_subnet(118), free_subnet(117)] == ["192.168.119", "192.168.117"]
