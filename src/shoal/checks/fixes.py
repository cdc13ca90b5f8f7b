"""What the doctor may mend itself: settings that can be put back. Pure: what is done, and what undoes it.

A finding's own fix is the source: what is shown, what a person would type and what is done are one. Only a few forms
are taken, each with the value that was there before; a fix whose undo is not known is left to the reader.
"""

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from shoal.checks.base import Finding, Status
from shoal.facts.node import NodeFacts

# Modules that bring a function and take nothing away.
MODULES = frozenset({"ib_uverbs", "ib_umad", "rdma_ucm", "rdma_cm", "mlx5_ib", "nvidia_peermem", "nvidia_uvm"})
LIMITS = "/etc/security/limits.d/90-shoal-memlock.conf"
SYSCTLS = "/etc/sysctl.d/90-shoal-{}.conf"
LOADED = "/etc/modules-load.d/shoal-{}.conf"
MEMLOCK = (
    "# RDMA locks the memory that it moves (shoal doctor --fix).\n* soft memlock unlimited\n* hard memlock unlimited\n"
)
SETTING = re.compile(r"([\w.-]+)=('[^']*'|\S+)")


@dataclass(frozen=True)
class Step:
    """A command as root; ``text`` is what it reads."""

    argv: tuple[str, ...]
    text: str = ""

    def __str__(self) -> str:
        line = shlex.join(self.argv)
        return f"{line}   # {' | '.join(self.text.splitlines())}" if self.text else line


@dataclass(frozen=True)
class Repair:
    """One thing that is mended on a node, and how it is put back."""

    node: str
    check: str
    steps: tuple[Step, ...]
    undo: tuple[Step, ...]
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For the journal."""
        return asdict(self)


@dataclass(frozen=True)
class Plan:
    """What can be mended, and findings whose fix is the reader's."""

    repairs: tuple[Repair, ...] = ()
    left: tuple[Finding, ...] = field(default_factory=tuple)


def plan(findings: Iterable[Finding], nodes: Mapping[str, NodeFacts]) -> Plan:
    """A repair for each finding that has a safe one; the same step is taken once."""
    repairs: dict[tuple[str, tuple[Step, ...]], Repair] = {}
    left = []
    for finding in findings:
        if finding.status not in {Status.FAIL, Status.WARN}:
            continue
        facts = nodes.get(finding.node)
        made = _repair(finding, facts) if facts else None
        if made:
            repairs.setdefault((made.node, made.steps), made)
        else:
            left.append(finding)
    return Plan(tuple(repairs.values()), tuple(left))


def _repair(finding: Finding, facts: NodeFacts) -> Repair | None:
    """None where there is no safe one; inside a container there never is: it is the host's."""
    if facts.container.inside:
        return None
    if finding.id == "host.memlock":
        undo = (Step(("rm", "-f", LIMITS)),)
        return Repair(finding.node, finding.id, (_file(LIMITS, MEMLOCK),), undo, "counts from the next login on")
    fix = finding.fix.partition("  #")[0].strip()
    return _sysctl(finding, fix, facts) or _mtu(finding, fix, facts) or _module(finding, fix, facts)


def _file(path: str, text: str) -> Step:
    return Step(("install", "-D", "-m", "644", "/dev/stdin", path), text)


def _sysctl(finding: Finding, fix: str, facts: NodeFacts) -> Repair | None:
    """``sudo sysctl -w NAME=VALUE ...``: now, and after the next boot."""
    found = re.fullmatch(rf"sudo sysctl -w ((?:{SETTING.pattern}\s*)+)", fix)
    if not found:
        return None
    wanted = {name: value.strip("'") for name, value in SETTING.findall(found.group(1))}
    before = {name: facts.machine.sysctls.get(name) for name in wanted}
    known = {name: value for name, value in before.items() if value}
    if len(known) != len(wanted):
        return None
    path = SYSCTLS.format(finding.id.replace(".", "-"))
    lines = "".join(f"{name} = {value}\n" for name, value in wanted.items())
    steps = (*(Step(("sysctl", "-w", f"{name}={value}")) for name, value in wanted.items()), _file(path, lines))
    undo = (Step(("rm", "-f", path)), *(Step(("sysctl", "-w", f"{name}={value}")) for name, value in known.items()))
    return Repair(finding.node, finding.id, steps, undo)


def _mtu(finding: Finding, fix: str, facts: NodeFacts) -> Repair | None:
    """``sudo ip link set IF mtu N``: now; the network's own configuration is the reader's."""
    found = re.fullmatch(r"sudo ip link set (?:dev )?(\S+) mtu (\d{2,5})", fix)
    dev = facts.net.netdev(found.group(1)) if found else None
    if not found or not dev or not dev.mtu:
        return None
    line = ("ip", "link", "set", "dev", dev.name, "mtu")
    note = "until the next boot: set it in netplan or NetworkManager too"
    return Repair(finding.node, finding.id, (Step((*line, found.group(2))),), (Step((*line, str(dev.mtu))),), note)


def _module(finding: Finding, fix: str, facts: NodeFacts) -> Repair | None:
    """``sudo modprobe NAME ...``: now, and after the next boot."""
    found = re.fullmatch(r"sudo modprobe (?:-a )?([\w ]+)", fix)
    names = found.group(1).split() if found else []
    if not names or not MODULES.issuperset(names) or set(names) & set(facts.machine.modules or ()):
        return None
    path = LOADED.format(finding.id.replace(".", "-"))
    steps = (Step(("modprobe", "-a", *names)), _file(path, "".join(f"{name}\n" for name in names)))
    return Repair(finding.node, finding.id, steps, (Step(("rm", "-f", path)), Step(("modprobe", "-r", *names))))


def parse(data: Mapping[str, Any]) -> Repair | None:
    """A repair out of the journal; None where it is of another form."""
    try:
        steps, undo = (
            tuple(Step(tuple(map(str, step["argv"])), str(step.get("text", ""))) for step in data[name])
            for name in ("steps", "undo")
        )
        return Repair(str(data["node"]), str(data["check"]), steps, undo, str(data.get("note", "")))
    except (KeyError, TypeError, AttributeError):
        return None
