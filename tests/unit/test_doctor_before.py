"""Two readings of one machine: `shoal doctor --before` judges counters by what they grew since."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from shoal.checks.run import Gathered
from shoal.errors import UsageError
from shoal.host.capture import pack
from shoal.host.snapshot import Snapshot
from shoal.ops.doctor import paired
from shoal.ui.cli import main

PORT = "/sys/class/infiniband/mlx5_0/ports/1"
THEN, NOW = 1_764_000_000.0, 1_764_000_010.0


def machine(name: str, taken: float, downed: int = 3, errors: int = 40, identity: str = "") -> Snapshot:
    """A node with one port and two of its counters."""
    files = {
        f"{PORT}/state": "4: ACTIVE\n",
        f"{PORT}/counters/link_downed": f"{downed}\n",
        f"{PORT}/counters/port_rcv_errors": f"{errors}\n",
    }
    identities = {"/etc/machine-id": f"{identity}\n"} if identity else {}
    return Snapshot(name, {**files, **identities}, looked=("/sys/class/infiniband", "/etc"), taken=taken)


def kept(folder: Path, taken: Snapshot) -> str:
    file = folder / f"{taken.name}-{taken.taken:.0f}.tar"
    file.write_bytes(pack(taken, "1.0"))
    return str(file)


def doctor(*words: str) -> Result:
    return CliRunner().invoke(main, ("doctor", *words, "--only", "rdma.link-steady", "--only", "rdma.receive-errors"))


def told(*words: str) -> dict[str, tuple[str, str]]:
    """Status and evidence by check."""
    findings = json.loads(doctor(*words, "--json").stdout)["findings"]
    return {item["id"]: (item["status"], item["evidence"]) for item in findings}


def test_one_reading_judges_no_counter(tmp_path: Path) -> None:
    """What counts since boot is told, and is neither good nor bad."""
    now = kept(tmp_path, machine("gx1", NOW))
    assert told("--from", now) == {
        "rdma.link-steady": ("SKIP", "one reading only; since boot: mlx5_0/1 link_downed 3"),
        "rdma.receive-errors": ("SKIP", "one reading only; since boot: mlx5_0/1 port_rcv_errors 40"),
    }


def test_two_captures_judge_the_growth(tmp_path: Path) -> None:
    """A link that went down in between fails; 200 damaged packets in ten seconds warn; the code is 1."""
    then = kept(tmp_path, machine("gx1", THEN))
    now = kept(tmp_path, machine("gx1", NOW, downed=4, errors=240))
    assert doctor("--from", now, "--before", then).exit_code == 1
    assert told("--from", now, "--before", then) == {
        "rdma.link-steady": ("FAIL", "link_downed: mlx5_0/1 +1"),
        "rdma.receive-errors": ("WARN", "port_rcv_errors: mlx5_0/1 +200 in 10 s"),
    }


def test_counters_that_stand_are_well(tmp_path: Path) -> None:
    """Errors of last year are no errors."""
    then, now = kept(tmp_path, machine("gx1", THEN)), kept(tmp_path, machine("gx1", NOW))
    assert told("--from", now, "--before", then) == {
        "rdma.link-steady": ("OK", "link_downed: no growth"),
        "rdma.receive-errors": ("OK", "port_rcv_errors: no growth in 10 s"),
    }


def test_nodes_are_paired_by_name_then_by_machine_id() -> None:
    """A capture taken on the node itself may have another name than the chair's for it."""
    now = Gathered((machine("gx1", NOW, identity="a"), machine("gx2", NOW, identity="b")))
    past = (machine("localhost", THEN, identity="b"), machine("gx1", THEN, downed=1))
    assert {name: facts.name for name, facts in paired(now, past).items()} == {"gx2": "localhost", "gx1": "gx1"}


def test_one_and_one_are_paired_unless_they_are_two_machines() -> None:
    """Two captures made by hand need no names; two machine ids are two machines."""
    assert set(paired(Gathered((machine("after", NOW),)), (machine("before", THEN),))) == {"after"}
    with pytest.raises(UsageError, match="before is none of the nodes"):
        paired(Gathered((machine("after", NOW, identity="a"),)), (machine("before", THEN, identity="b"),))


def test_a_node_that_is_not_reached_now_is_no_mistake() -> None:
    """Its earlier capture waits for it."""
    missing = Gathered((machine("gx1", NOW),), {"gx2": UsageError("gx2 is off")})
    assert set(paired(missing, (machine("gx1", THEN), machine("gx2", THEN)))) == {"gx1"}


def test_readings_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    """Another machine, or the two in the wrong order: code 2, the names, no traceback."""
    then, now = kept(tmp_path, machine("gx1", THEN)), kept(tmp_path, machine("gx1", NOW))
    other = [kept(tmp_path, machine(name, THEN)) for name in ("gx7", "gx8")]
    swapped = doctor("--from", then, "--before", now)
    strange = doctor("--from", now, "--before", other[0], "--before", other[1])
    assert (swapped.exit_code, strange.exit_code) == (2, 2)
    assert "gx1 was taken after gx1 was read" in swapped.output
    assert "gx7 is none of the nodes" in strange.output
