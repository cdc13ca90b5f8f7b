"""What the doctor mends can be put back, is asked for, and is remembered."""

import json
from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from shoal.checks import fixes
from shoal.checks.base import Finding, Severity, Status
from shoal.checks.fixes import LIMITS, MEMLOCK, Plan, Repair, Step
from shoal.checks.run import Report
from shoal.errors import CommandFailed, PreconditionFailed
from shoal.facts.container import ContainerFacts
from shoal.facts.machine import MachineFacts
from shoal.facts.net import Netdev, NetFacts
from shoal.facts.node import NodeFacts
from shoal.host.base import Result
from shoal.host.fake import FakeHost
from shoal.ops.repair import Memory, apply, put_back
from shoal.ui import fixing

FACTS = NodeFacts(
    "gx1",
    machine=MachineFacts(
        sysctls={"kernel.numa_balancing": "1", "net.ipv4.ip_local_port_range": "32768\t33000"}, modules=()
    ),
    net=NetFacts((Netdev("eth1", mtu=1500),)),
    container=ContainerFacts(inside=""),
)


def finding(check: str, fix: str, status: Status = Status.WARN) -> Finding:
    return Finding(check, "t", status, "seen", fix, Severity.WARNING, "gx1")


NUMA = finding("host.numa", "sudo sysctl -w kernel.numa_balancing=0")
SYSCTL = Repair(
    "gx1",
    "host.numa",
    (
        Step(("sysctl", "-w", "kernel.numa_balancing=0")),
        Step(
            ("install", "-D", "-m", "644", "/dev/stdin", "/etc/sysctl.d/90-shoal-host-numa.conf"),
            "kernel.numa_balancing = 0\n",
        ),
    ),
    (Step(("rm", "-f", "/etc/sysctl.d/90-shoal-host-numa.conf")), Step(("sysctl", "-w", "kernel.numa_balancing=1"))),
)


def planned(item: Finding, facts: NodeFacts = FACTS) -> Plan:
    return fixes.plan([item], {"gx1": facts})


def test_a_sysctl_goes_back_to_what_it_was() -> None:
    """Now and after the next boot; undo has the old value."""
    assert planned(NUMA) == Plan((SYSCTL,))


def test_a_quoted_value_and_two_settings() -> None:
    """The range keeps its blank, and each setting its own undo."""
    (repair,) = planned(finding("host.port-range", "sudo sysctl -w net.ipv4.ip_local_port_range='32768 60999'")).repairs
    assert repair.steps[0].argv == ("sysctl", "-w", "net.ipv4.ip_local_port_range=32768 60999")
    assert repair.undo[-1].argv == ("sysctl", "-w", "net.ipv4.ip_local_port_range=32768\t33000")


def test_an_mtu() -> None:
    """With the old one to go back to, and a word that it does not outlive a boot."""
    (repair,) = planned(finding("roce.mtu", "sudo ip link set eth1 mtu 9000  # on every node")).repairs
    line = ("ip", "link", "set", "dev", "eth1", "mtu")
    assert (repair.steps, repair.undo) == ((Step((*line, "9000")),), (Step((*line, "1500")),))
    assert "until the next boot" in repair.note


def test_modules_and_locked_memory() -> None:
    """A module is loaded now and at boot; a limit is a file of its own."""
    (module,) = planned(finding("rdma.umad", "sudo modprobe ib_umad")).repairs
    assert module.steps[0].argv == ("modprobe", "-a", "ib_umad")
    assert module.undo == (
        Step(("rm", "-f", "/etc/modules-load.d/shoal-rdma-umad.conf")),
        Step(("modprobe", "-r", "ib_umad")),
    )
    (limit,) = planned(finding("host.memlock", "LimitMEMLOCK=infinity", Status.FAIL)).repairs
    assert limit.steps == (Step(("install", "-D", "-m", "644", "/dev/stdin", LIMITS), MEMLOCK),)


@pytest.mark.parametrize(
    "fix",
    [
        "sudo reboot",
        "sudo sysctl -w net.core.rmem_max=1",  # nobody knows what it was
        "sudo sysctl -w kernel.numa_balancing=0; rm -rf /",
        "sudo modprobe evil",
        "sudo ip link set eth9 mtu 9000",
        "unset X; or: sudo sysctl -w kernel.numa_balancing=0",
        "",
    ],
)
def test_everything_else_is_left_to_the_reader(fix: str) -> None:
    """A fix of another form, or without a way back."""
    item = finding("x.y", fix)
    assert planned(item) == Plan((), (item,))


def test_nothing_is_mended_inside_a_container_or_where_all_is_well() -> None:
    """The host's settings are the host's."""
    inside = replace(FACTS, container=ContainerFacts(inside="docker"))
    assert planned(NUMA, inside).repairs == ()
    assert planned(replace(NUMA, status=Status.OK)) == Plan()


class Root(FakeHost):
    """A machine where every command ends well, but those that are told to fail."""

    def __init__(self, uid: str = "0", fails: Sequence[str] = ()) -> None:
        super().__init__(name="gx1")
        self.uid, self.fails, self.did = uid, fails, list[str]()

    def run(
        self, argv: Sequence[str], *, timeout: float, ok: Container[int] = (0,), input: str | bytes | None = None
    ) -> Result:
        if tuple(argv) == ("id", "-u"):
            return Result(("id", "-u"), 0, self.uid, "")
        self.did.append(" ".join(argv))
        code = int(any(word in self.did[-1] for word in self.fails))
        return Result(tuple(argv), code, "", "refused" if code else "").require(ok, self.name)


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path)


def test_mended_and_put_back(memory: Memory) -> None:
    """The steps in order; then it is on the list to undo, and after that it is not."""
    host = Root()
    apply(SYSCTL, host, memory)
    assert memory.undoable() == (SYSCTL,)
    put_back(SYSCTL, host, memory)
    assert memory.undoable() == ()
    assert host.did == [" ".join(step.argv) for step in (*SYSCTL.steps, *SYSCTL.undo)]


def test_a_step_that_fails_puts_back_what_was_done(memory: Memory) -> None:
    """Nothing half done is left."""
    host = Root(fails=("install",))
    with pytest.raises(CommandFailed, match="install"):
        apply(SYSCTL, host, memory)
    assert host.did[-2:] == ["rm -f /etc/sysctl.d/90-shoal-host-numa.conf", "sysctl -w kernel.numa_balancing=1"]
    assert memory.undoable() == ()


def test_others_use_sudo_or_change_nothing(memory: Memory) -> None:
    """sudo that asks nothing is used; one that asks is an error before anything is changed."""
    host = Root(uid="1000")
    apply(SYSCTL, host, memory)
    assert host.did[1] == "sudo -n sysctl -w kernel.numa_balancing=0"
    closed = Root(uid="1000", fails=("sudo",))
    with pytest.raises(PreconditionFailed, match="mending needs root"):
        apply(replace(SYSCTL, check="x.y"), closed, memory)
    assert [repair.check for repair in memory.undoable()] == ["host.numa"]


def test_undo_goes_back_to_the_first_value(memory: Memory) -> None:
    """Mended twice: the value from before the first time is the one that comes back."""
    again = replace(SYSCTL, undo=(Step(("sysctl", "-w", "kernel.numa_balancing=0")),))
    apply(SYSCTL, Root(), memory)
    apply(again, Root(), memory)
    assert memory.undoable() == (SYSCTL,)


def test_what_cannot_be_remembered_is_not_done(tmp_path: Path) -> None:
    """Without a journal there would be no way back."""
    (tmp_path / "journal").write_text("a file where the folder should be")
    host = Root()
    with pytest.raises(PreconditionFailed, match="nothing was changed"):
        apply(SYSCTL, host, Memory(tmp_path))
    assert host.did == []


def test_a_repair_survives_the_journal() -> None:
    """Written and read it is the same; what is of another form is nothing."""
    assert fixes.parse(json.loads(json.dumps(SYSCTL.as_dict()))) == SYSCTL
    assert fixes.parse({"node": "x"}) is None
    assert fixes.parse({"node": "x", "check": "y", "steps": [3], "undo": []}) is None


def test_each_change_is_shown_with_its_undo(memory: Memory, capsys: pytest.CaptureFixture[str]) -> None:
    """What is done, what puts it back, and how."""
    report = Report(("gx1",), (NUMA,), facts={"gx1": FACTS})
    assert fixing.fix(report, [Root()], memory, yes=True) == 0
    assert capsys.readouterr().out.splitlines() == [
        "mend host.numa on gx1",
        "  do:   sysctl -w kernel.numa_balancing=0",
        "  do:   install -D -m 644 /dev/stdin /etc/sysctl.d/90-shoal-host-numa.conf   # kernel.numa_balancing = 0",
        "  undo: rm -f /etc/sysctl.d/90-shoal-host-numa.conf",
        "  undo: sysctl -w kernel.numa_balancing=1",
        "  done; shoal doctor --undo puts it back",
    ]
    assert fixing.fix(report, [Root(fails=("sysctl",))], memory, yes=True) == 3
    assert fixing.fix(Report(("gx1",), ()), [], memory, yes=True) == 0


def test_undo_of_nothing(memory: Memory, capsys: pytest.CaptureFixture[str]) -> None:
    """It says so."""
    assert fixing.undo(memory, yes=True) == 0
    assert capsys.readouterr().out == "nothing was mended that is not undone\n"
