"""Faults by name: what each strikes, what it does, and how one that lasts is undone."""

import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import psutil

from shoal.errors import PreconditionFailed, ShoalError, UsageError
from shoal.host.local import LocalHost
from shoal.lab import clock, cluster, namespace, processes
from shoal.lab.cluster import Lab
from shoal.lab.network import NETDEV, Argv
from shoal.lab.record import FaultRecord, HostRecord
from shoal.ops import sweep
from shoal.spec.nearest import did_you_mean

Strikes = Literal["process", "host", "head"]
DELAY_MS, LOSS_PERCENT = 200, 20
JUMP_SECONDS = 3600
FILLER = "filler"
BLOCK = bytes(1 << 20)


@dataclass(frozen=True)
class Fault:
    """A kind of fault. ``lasts``: it stays until it is undone."""

    name: str
    strikes: Strikes
    meaning: str
    lasts: bool = False
    needs_namespace: bool = False


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("kill", "process", "SIGKILL to the processes of a role"),
        Fault("stop", "process", "SIGSTOP to the processes of a role: there, and silent", lasts=True),
        Fault("link-down", "host", "the host's cable is pulled", lasts=True, needs_namespace=True),
        Fault("delay", "host", f"{DELAY_MS} ms on its cable (netem)", lasts=True, needs_namespace=True),
        Fault("loss", "host", f"{LOSS_PERCENT} % of what comes to it is lost", lasts=True, needs_namespace=True),
        Fault("reboot", "host", "all processes end, /dev/shm is empty, it starts again"),
        Fault("head-reboot", "head", "the same, of the head"),
        Fault("disk-full", "host", "its disk has no byte left", lasts=True, needs_namespace=True),
        Fault("clock-jump", "host", f"its wall clock jumps by {JUMP_SECONDS} s (simulated)", lasts=True),
    )
}


@dataclass(frozen=True)
class Target:
    """A host, and the role that is struck on it; no role where the host itself is."""

    host: HostRecord
    role: str = ""

    def __str__(self) -> str:
        return f"{self.role}@{self.host.name}" if self.role else self.host.name


def find_fault(name: str) -> Fault:
    """The fault of that name, or UsageError with the nearest."""
    if name not in FAULTS:
        raise UsageError(f'no fault "{name}"', why=did_you_mean(name, FAULTS), fix=f"one of: {', '.join(FAULTS)}")
    return FAULTS[name]


def read_target(lab: Lab, fault: Fault, text: str) -> Target:
    """``ROLE@HOST`` or ``HOST``; a role that only the head has needs no host.

    Raises:
        UsageError: it is not what this fault strikes.
    """
    if fault.strikes == "head":
        return Target(lab.host("head"))
    if fault.strikes == "host":
        return Target(lab.host(text))
    role, _, host = text.partition("@")
    processes.check_role(role)
    if not host and role not in processes.HEAD_ONLY:
        raise UsageError(f"{text}: which host's {role}?", fix=f"shoal lab fault {fault.name} {role}@n2")
    return Target(lab.host(host or "head"), role)


def strike(lab: Lab, fault: Fault, target: Target) -> tuple[Lab, str]:
    """Let the fault happen; the lab afterwards, and what was done in words.

    Raises:
        ShoalError: this lab or this kernel cannot have it, or nothing plays that role there now.
    """
    if fault.needs_namespace and lab.record.kind != "namespace":
        raise PreconditionFailed(f"{fault.name} needs namespace hosts", fix="shoal lab up --hosts namespace")
    if any(old.fault == fault.name and (old.host, old.role) == _place(target) for old in lab.record.faults):
        raise UsageError(f"{fault.name} {target} lasts already", fix=f"shoal lab fault {fault.name} {target} --undo")
    if fault.strikes == "process":
        return _strike_processes(lab, fault, target)
    if fault.name in {"reboot", "head-reboot"}:
        return cluster.reboot(lab, target.host), f"{target.host.name} was switched off and on"
    words = _LASTING[fault.name][0](lab, target.host)
    return _recorded(lab, FaultRecord(fault=fault.name, host=target.host.name)), words


def _place(target: Target) -> tuple[str, str]:
    return target.host.name, target.role


def _recorded(lab: Lab, record: FaultRecord) -> Lab:
    return cluster.saved(lab, lab.record.model_copy(update={"faults": (*lab.record.faults, record)}))


def _strike_processes(lab: Lab, fault: Fault, target: Target) -> tuple[Lab, str]:
    found = processes.find(target.host, lab.record.run.boot_id, target.role)
    if not found:
        raise ShoalError(f"nothing plays the {target.role} on {target.host.name} now", fix="shoal lab status")
    procs = tuple(sweep.record(target.role, "struck", process.pid) for process in found)
    number = signal.SIGSTOP if fault.name == "stop" else signal.SIGKILL
    for process in found:
        _send(process, number)
    if fault.lasts:
        lab = _recorded(lab, FaultRecord(fault=fault.name, host=target.host.name, role=target.role, procs=procs))
    return lab, f"{number.name} to {target} (pid {', '.join(str(process.pid) for process in found)})"


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def undo(lab: Lab, record: FaultRecord) -> tuple[Lab, str]:
    """End a fault that lasts; the lab afterwards, and what was done in words."""
    host = lab.host(record.host)
    if record.fault == "stop":
        for proc in record.procs:
            if process := sweep.alive(proc, lab.record.run.boot_id):
                _send(process, signal.SIGCONT)
        words = f"SIGCONT to {record.role}@{record.host}"
    else:
        words = _LASTING[record.fault][1](lab, host)
    rest = tuple(old for old in lab.record.faults if old != record)
    return cluster.saved(lab, lab.record.model_copy(update={"faults": rest})), words


def lasting(lab: Lab, fault: Fault, target: Target) -> FaultRecord:
    """The record of a fault that lasts there.

    Raises:
        UsageError: there is none.
    """
    for record in lab.record.faults:
        if record.fault == fault.name and (record.host, record.role) == _place(target):
            return record
    raise UsageError(f"there is no {fault.name} on {target} to undo", fix="shoal lab status")


def _cable(*, up: bool) -> Callable[[Lab, HostRecord], str]:
    def act(lab: Lab, host: HostRecord) -> str:
        namespace.carry_out([lab.net.cable(host.number, up=up)])
        return f"the cable of {host.name} is {'back' if up else 'pulled'}"

    return act


def _inside(lab: Lab, host: HostRecord, argv: Argv) -> Argv:
    return ("ip", "netns", "exec", lab.net.namespace(host.name), *argv)


def _delay(lab: Lab, host: HostRecord) -> str:
    argv = _inside(lab, host, ("tc", "qdisc", "add", "dev", NETDEV, "root", "netem", "delay", f"{DELAY_MS}ms"))
    if not namespace.attempt(argv):
        raise PreconditionFailed("this kernel has no netem: a delay cannot be made here", fix="modprobe sch_netem")
    return f"{DELAY_MS} ms on the cable of {host.name}"


def _no_delay(lab: Lab, host: HostRecord) -> str:
    namespace.carry_out([_inside(lab, host, ("tc", "qdisc", "del", "dev", NETDEV, "root"))])
    return f"no delay on the cable of {host.name}"


def _losing(word: str) -> Argv:
    share = f"{LOSS_PERCENT / 100:g}"
    how = ("-m", "statistic", "--mode", "random", "--probability", share)
    return ("iptables", "-w", word, "INPUT", "-i", NETDEV, *how, "-j", "DROP")


def _loss(lab: Lab, host: HostRecord) -> str:
    # The firewall can lose packets on kernels that have no netem.
    if shutil.which("iptables") is None or not namespace.attempt(_inside(lab, host, _losing("-A"))):
        fix = "apt-get install iptables, and a kernel with xt_statistic"
        raise PreconditionFailed("this machine cannot lose packets on purpose", fix=fix)
    return f"{LOSS_PERCENT} % of the packets to {host.name} are lost"


def _no_loss(lab: Lab, host: HostRecord) -> str:
    namespace.carry_out([_inside(lab, host, _losing("-D"))])
    return f"no packet to {host.name} is lost on purpose"


def _fill(lab: Lab, host: HostRecord) -> str:
    del lab
    path = host.disk / FILLER
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(BLOCK)
        except OSError:
            return f"the disk of {host.name} is full: {path.stat().st_size >> 20} MiB of filler"


def _empty(lab: Lab, host: HostRecord) -> str:
    del lab
    (host.disk / FILLER).unlink(missing_ok=True)
    return f"the disk of {host.name} has room again"


def _clock(seconds: int) -> Callable[[Lab, HostRecord], str]:
    def act(lab: Lab, host: HostRecord) -> str:
        if not lab.record.clock:
            raise PreconditionFailed("this lab's clocks cannot jump", fix="shoal lab up --clock")
        LocalHost().write(f"{host.folder}/{clock.FILE}", clock.offset(seconds))
        return f"the wall clock of {host.name} is {seconds} s ahead (simulated)"

    return act


_LASTING: Mapping[str, tuple[Callable[[Lab, HostRecord], str], Callable[[Lab, HostRecord], str]]] = {
    "link-down": (_cable(up=False), _cable(up=True)),
    "delay": (_delay, _no_delay),
    "loss": (_loss, _no_loss),
    "disk-full": (_fill, _empty),
    "clock-jump": (_clock(JUMP_SECONDS), _clock(0)),
}
