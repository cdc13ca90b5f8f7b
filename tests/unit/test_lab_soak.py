"""The soak: the same seed strikes the same, answers are checked, a tally adds up."""

import random
from pathlib import Path

import pytest
from tests.unit.test_lab_faults import lab as make_lab

from shoal.lab import soak
from shoal.lab.cluster import Lab
from shoal.lab.load import Tally
from shoal.lab.soak import Report, Struck


def words(lab: Lab, seed: int) -> list[str]:
    chosen = random.Random(seed)
    return [f"{fault.name} {target}" for fault, target in (chosen.choice(soak.choices(lab)) for _ in range(20))]


def test_the_same_seed_gives_the_same_faults(tmp_path: Path) -> None:
    """A soak can be told again by its seed."""
    lab = make_lab(tmp_path)
    assert words(lab, 7) == words(lab, 7)
    assert words(lab, 7) != words(lab, 8)


def test_every_fault_and_role_has_its_turn(tmp_path: Path) -> None:
    """Whatever this lab can have is among the choices; a delay is not, for most kernels have none."""
    lab = make_lab(tmp_path)
    found = {f"{fault.name} {target}" for fault, target in soak.choices(lab)}
    heads = [f"{role}@n1" for role in ("gcs", "engine", "api", "supervisor")]
    both = [f"{role}@n{number}" for number in (1, 2) for role in ("agent", "raylet", "rank")]
    hosts = [f"{fault} n{number}" for fault in ("link-down", "loss", "disk-full") for number in (1, 2)]
    struck = {f"{fault} {target}" for fault in ("kill", "stop") for target in (*heads, *both)}
    assert found == {*struck, *hosts, "reboot n2", "head-reboot n1"}


def test_loopback_hosts_have_fewer_faults(tmp_path: Path) -> None:
    """No cable, no disk of their own."""
    lab = make_lab(tmp_path, "loopback")
    assert {fault.name for fault, _ in soak.choices(lab)} == {"kill", "stop", "reboot", "head-reboot"}


@pytest.mark.parametrize(
    ("fields", "good"),
    [
        ({}, True),
        ({"lies": ["said ready"]}, False),
        ({"lost": ["not ready"]}, False),
        ({"requests": {"wrong": ["x"], "hung": 0}}, False),
        ({"requests": {"wrong": [], "hung": 1}}, False),
    ],
)
def test_what_is_good(fields: dict[str, object], good: bool) -> None:
    """One lie, one host that did not come back, one wrong answer or one that hung is enough."""
    report = Report(1, struck=[Struck(1.0, "kill", 0.0, 2.0)], requests=Tally(right=3).as_dict())
    for name, value in fields.items():
        setattr(report, name, value)
    assert report.good is good


def test_a_tally_adds_up() -> None:
    """Each request ends in one way."""
    assert Tally(right=3, failed=2, timed_out=1, hung=1, wrong=["x"]).sent == 8
