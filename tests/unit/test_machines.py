"""Captured machines, judged whole: what the doctor says of each is its golden file."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.conftest import Golden

from shoal.ui.cli import main

MACHINES = Path(__file__).parents[1] / "machines"
NAMES = sorted(path.name for path in MACHINES.iterdir() if path.is_dir())


@pytest.mark.parametrize("name", NAMES)
def test_the_doctor_of_a_machine(golden: Golden, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line by line, on a terminal of 120 columns."""
    monkeypatch.setenv("COLUMNS", "120")
    done = CliRunner().invoke(main, ["doctor", "--from", str(MACHINES / name)])
    assert "Traceback" not in done.output
    golden(f"doctor/{name}.json", {"exit_code": done.exit_code, "lines": done.output.splitlines()})


@pytest.mark.parametrize("name", ["plain-vm", "h200x2", "h100x2"])
def test_a_healthy_machine_fails_nothing(name: str) -> None:
    """A machine without RDMA need not have it; a GPU host that is well is well."""
    done = CliRunner().invoke(main, ["doctor", "--from", str(MACHINES / name), "--short"])
    assert (done.exit_code, [line for line in done.output.splitlines() if line.startswith("FAIL")]) == (0, [])
