"""PREFLIGHT by the doctor's checks: what is fatal stops the agent, unless it is named as not to be heeded."""

import io

import pytest

from shoal.agent import checkup
from shoal.checks.base import Finding, Severity, Status
from shoal.errors import ConfigError, PreconditionFailed
from shoal.host.local import LocalHost
from shoal.log import Event, EventLog

FATAL = Finding(
    "gpu.driver-loaded", "the driver is loaded", Status.FAIL, "it is not", "modprobe nvidia", Severity.FATAL
)
SLOW = Finding("gpu.nvlink-active", "every NVLink is active", Status.FAIL, "one is not", "", Severity.ERROR)
WELL = Finding("gpu.answers", "nvidia-smi answers", Status.OK)
SUM = "3 checks: 1 passed, 2 failed, the others do not apply or could not be told"


class Heard(list[Event]):
    """A log that keeps what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.log = EventLog(io.StringIO(), clock=lambda: 0.0)
        self.log.listeners.append(self.append)


def test_what_is_fatal_stops_with_its_fix() -> None:
    """All that is bad is told first; the error has the fix."""
    heard = Heard()
    with pytest.raises(PreconditionFailed) as caught:
        checkup.tell(heard.log, (WELL, SLOW, FATAL), frozenset())
    assert (caught.value.what, caught.value.fix) == ("gpu.driver-loaded: it is not", "modprobe nvidia")
    assert [(event.level, event.message) for event in heard] == [
        ("warn", "gpu.nvlink-active: every NVLink is active: no: one is not"),
        ("warn", "gpu.driver-loaded: the driver is loaded: no: it is not; fix: modprobe nvidia"),
        ("info", SUM),
    ]


def test_a_check_that_is_not_to_be_heeded_only_warns() -> None:
    """It is told all the same, with the reason why the agent goes on."""
    heard = Heard()
    checkup.tell(heard.log, (WELL, SLOW, FATAL), checkup.demoted("gpu.driver-loaded, gpu.answers"))
    assert heard[1].message.startswith("gpu.driver-loaded (not heeded: SHOAL_PREFLIGHT_IGNORE): ")


def test_an_id_that_is_none_is_refused() -> None:
    """With the nearest."""
    with pytest.raises(
        ConfigError, match=r"no check 'gpu.driver-loade' runs at the start; did you mean .gpu.driver-loaded"
    ):
        checkup.demoted("gpu.driver-loade")


def test_this_machine_is_fit() -> None:
    """A machine without GPU and RDMA is: nothing that it need not have keeps an agent from starting."""
    heard = Heard()
    checkup.tell(heard.log, checkup.look(LocalHost(), {}), frozenset())
    assert "checks: " in heard[-1].message


def test_what_runs_at_the_start() -> None:
    """Checks of a node and its environment, errors and worse; not what the agent itself looks at or waits for."""
    ids = {check.id for check in checkup.CHOSEN.node}
    assert {check.severity for check in checkup.CHOSEN.node} == {Severity.FATAL, Severity.ERROR}
    assert ids & checkup.ELSEWHERE == set()
    assert {"gpu.driver-loaded", "rdma.uverbs", "host.memlock", "env.hca-exists"} <= ids
