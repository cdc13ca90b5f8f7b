"""What ``SHOAL_TEST_ALL=1`` makes of a skipped test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PASSES = "def test_p(): pass\n"
SKIPS = f"import pytest\n{PASSES}@pytest.mark.skip(reason='no: engine')\ndef test_s(): pass\n"
SKIPS_INSIDE = f"import pytest\n{PASSES}def test_s(): pytest.skip('no: engine')\n"
SKIPS_WHOLE = "import pytest\npytest.skip('no: engine', allow_module_level=True)\n"
FAILS = "def test_f(): assert False\n"
XFAILS = "import pytest\n@pytest.mark.xfail\ndef test_x(): assert False\n"


def child(folder: Path, text: str, switch: str) -> tuple[int, list[str]]:
    """A run of pytest over one file: its exit status, and the lines that name a skipped test."""
    (folder / "test_it.py").write_text(text)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "SHOAL_TEST_ALL"))}
    argv = (sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider", str(folder))
    done = subprocess.run(
        argv, cwd=ROOT, env=env | {"SHOAL_TEST_ALL": switch}, capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, [line for line in done.stdout.splitlines() if "SHOAL_TEST_ALL" in line]


@pytest.mark.parametrize(
    ("text", "test"),
    [(SKIPS, "test_it.py::test_s"), (SKIPS_INSIDE, "test_it.py::test_s"), (SKIPS_WHOLE, "test_it.py")],
)
def test_a_skip_fails_the_run(tmp_path: Path, text: str, test: str) -> None:
    """Where all must run, a skip of any kind ends the run with status 1, and is named with its reason."""
    assert child(tmp_path, text, "1") == (1, [f"SHOAL_TEST_ALL=1, and yet skipped: {test}: no: engine"])


@pytest.mark.parametrize(("text", "switch"), [(SKIPS, ""), (SKIPS, "0"), (PASSES, "1"), (XFAILS, "1")])
def test_other_runs_are_as_ever(tmp_path: Path, text: str, switch: str) -> None:
    """A skip where it is allowed, and a run without a skip, pass without a word."""
    assert child(tmp_path, text, switch) == (0, [])


def test_a_failure_stays_a_failure(tmp_path: Path) -> None:
    """A run with a failed and a skipped test fails, and names the skipped one too."""
    code, lines = child(tmp_path, SKIPS + FAILS, "1")
    assert (code, len(lines)) == (1, 1)
