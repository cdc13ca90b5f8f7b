"""Faults: what each strikes, and words that are wrong."""

from pathlib import Path

import pytest

from shoal.errors import PreconditionFailed, UsageError
from shoal.lab import faults, plan
from shoal.lab.cluster import Lab
from shoal.lab.plan import Wish
from shoal.lab.record import FaultRecord, Kind, LabRecord, load, save
from shoal.ops.local import run_record
from shoal.plan.local import plan_local


def lab(tmp_path: Path, kind: Kind = "namespace") -> Lab:
    places = plan.Places(tmp_path, tmp_path / "hosts", tmp_path / "cache")
    spec = plan.local_spec(Wish(2, kind, "sim"), places, plan.SIMULATED, "simulated", "run")
    cluster = plan_local(spec)
    hosts = plan.hosts_of(cluster, kind, places)
    run = run_record(cluster, spec)
    return Lab(tmp_path, LabRecord(tag="ab12", kind=kind, engine="sim", subnet="192.168.100", run=run, hosts=hosts))


@pytest.mark.parametrize(
    ("fault", "word", "target"),
    [
        ("kill", "raylet@n2", "raylet@n2"),
        ("kill", "gcs", "gcs@n1"),
        ("stop", "engine@head", "engine@n1"),
        ("reboot", "n2", "n2"),
        ("link-down", "head", "n1"),
        ("head-reboot", "", "n1"),
    ],
)
def test_targets(tmp_path: Path, fault: str, word: str, target: str) -> None:
    """A role on a host, a role that only the head has, or a host."""
    assert str(faults.read_target(lab(tmp_path), faults.FAULTS[fault], word)) == target


@pytest.mark.parametrize(
    ("fault", "word", "what"),
    [
        ("kill", "raylet", "raylet: which host's raylet?"),
        ("kill", "rylet@n2", 'no role "rylet"'),
        ("reboot", "n3", 'no host "n3" in the lab'),
        ("reboot", "", 'no host "" in the lab'),
    ],
)
def test_wrong_targets(tmp_path: Path, fault: str, word: str, what: str) -> None:
    """What is wrong is said before anything is struck."""
    with pytest.raises(UsageError) as caught:
        faults.read_target(lab(tmp_path), faults.FAULTS[fault], word)
    assert caught.value.what == what


def test_an_unknown_fault_names_the_nearest() -> None:
    """A typing error is answered with the right word."""
    with pytest.raises(UsageError) as caught:
        faults.find_fault("link-dwn")
    assert caught.value.why.startswith('did you mean "link-down"')


@pytest.mark.parametrize("name", [name for name, fault in faults.FAULTS.items() if fault.needs_namespace])
def test_loopback_hosts_have_no_cable_and_no_disk(tmp_path: Path, name: str) -> None:
    """What loopback hosts cannot have is refused, not imitated."""
    here = lab(tmp_path, "loopback")
    with pytest.raises(PreconditionFailed, match=f"{name} needs namespace hosts"):
        faults.strike(here, faults.FAULTS[name], faults.Target(here.host("n2")))


def test_a_clock_jumps_once_and_back(tmp_path: Path) -> None:
    """A fault that lasts is on record until it is undone, and does not strike twice."""
    here, fault = lab(tmp_path), faults.FAULTS["clock-jump"]
    target = faults.Target(here.host("n2"))
    Path(target.host.folder).mkdir(parents=True)
    with pytest.raises(PreconditionFailed, match="cannot jump"):
        faults.strike(here, fault, target)
    here = Lab(tmp_path, here.record.model_copy(update={"clock": True}))
    struck, _ = faults.strike(here, fault, target)
    assert struck.record.faults == (FaultRecord(fault="clock-jump", host="n2"),)
    with pytest.raises(UsageError, match="lasts already"):
        faults.strike(struck, fault, target)
    assert Path(target.host.folder, "clock").read_text() == "+3600\n"
    after, words = faults.undo(struck, faults.lasting(struck, fault, target))
    assert (after.record.faults, words) == ((), "the wall clock of n2 is 0 s ahead (simulated)")
    with pytest.raises(UsageError, match="no clock-jump on n2 to undo"):
        faults.lasting(after, fault, target)


def test_a_lab_is_remembered(tmp_path: Path) -> None:
    """What was written is what is read."""
    here = lab(tmp_path)
    save(tmp_path, here.record)
    assert load(tmp_path) == here.record
