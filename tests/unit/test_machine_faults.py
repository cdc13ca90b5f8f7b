"""Machines in tests/machines: healthy ones raise no alarm, and a fault laid over one is named by its checks alone."""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import yaml
from tests.conftest import TESTS
from tests.forge.machines import MACHINES
from tests.forge.tree import found

from shoal.checks.base import Finding, Severity, Status
from shoal.checks.catalogue import CHECKS
from shoal.checks.run import Choice, choose, judged
from shoal.facts.node import Fleet, NodeFacts
from shoal.facts.read import node_facts
from shoal.host.capture import load
from shoal.host.snapshot import Reply, Snapshot

FOLDER = TESTS / "machines"
BROKEN: list[dict[str, Any]] = yaml.safe_load((FOLDER / "broken.yaml").read_text(encoding="utf-8"))
OURS = tuple(check for check in CHECKS if check.group in {"gpu", "rdma", "roce"})
BAD = {Status.FAIL, Status.WARN}
CHOSEN = choose(Choice())


@cache
def snapshots(machine: str) -> tuple[Snapshot, ...]:
    return load(FOLDER / machine)


@cache
def healthy(machine: str) -> tuple[NodeFacts, ...]:
    return tuple(node_facts(taken) for taken in snapshots(machine))


def findings(nodes: tuple[NodeFacts, ...]) -> list[Finding]:
    """What the doctor says of these nodes."""
    out = [finding for facts in nodes for finding in judged(CHOSEN.node, facts, facts.name)]
    return out + list(judged(CHOSEN.fleet, Fleet(nodes)) if len(nodes) > 1 else ())


@cache
def said(machine: str) -> tuple[Finding, ...]:
    return tuple(findings(healthy(machine)))


def test_machines_are_as_they_are_made() -> None:
    """The folders hold what tests/forge writes: python -m tests.forge makes them anew."""
    for folder, make in MACHINES.items():
        trees = make()
        for tree in trees:
            assert found(FOLDER / folder / tree.name if len(trees) > 1 else FOLDER / folder) == tree.everything()


@pytest.mark.parametrize("machine", MACHINES)
def test_a_healthy_machine_raises_no_alarm(machine: str) -> None:
    """No FAIL anywhere, and no WARN but one that this machine earns."""
    earned = {"spark-ring": {"env.subnet-aware"}}
    assert {item.id for item in said(machine) if item.status in BAD} == earned.get(machine, set())


def broken(fault: dict[str, Any]) -> tuple[NodeFacts, ...]:
    """The machine with the fault."""
    nodes = []
    for taken, facts in zip(snapshots(fault["machine"]), healthy(fault["machine"]), strict=True):
        if fault.get("node", taken.name) != taken.name:
            nodes.append(facts)
            continue
        after = node_facts(Edit(taken, fault).made())
        again = fault.get("again", False)
        nodes.append(replace(after, before=facts) if again else after)
    return tuple(nodes)


class Edit:
    """A snapshot with a fault laid over it."""

    def __init__(self, taken: Snapshot, fault: dict[str, Any]) -> None:
        self.taken, self.fault = taken, fault
        self.files, self.links = dict(taken.files), dict(taken.links)
        self.errors, self.replies = dict(taken.errors), dict(taken.replies)

    def made(self) -> Snapshot:
        self.change_files()
        self.change_replies()
        now = (self.taken.taken or 0) + 10
        return replace(
            self.taken,
            files=self.files,
            links=self.links,
            errors=self.errors,
            replies=self.replies,
            taken=now,
            asked=now,
        )

    def change_files(self) -> None:
        for gone in self.fault.get("folders_gone", ()):
            for kept in (self.files, self.links, self.errors):
                for path in [path for path in kept if self.is_below(path, gone)]:
                    del kept[path]
        for path, text in {**self.fault.get("files", {}), **dict(self.counted())}.items():
            self.set(path, text)
        for path, (old, new) in self.fault.get("edit_file", {}).items():
            assert old in self.files[path], f"{path} has no {old!r}"
            self.set(path, self.files[path].replace(old, new, 1))
        for path, why in self.fault.get("errors", {}).items():
            self.files.pop(path, None)
            self.errors[path] = why
        for device, slots in self.fault.get("gids_gone", {}).items():
            for slot in slots:
                self.set(f"/sys/class/infiniband/{device}/ports/1/gids/{slot}", "0000:" * 7 + "0000\n")

    @staticmethod
    def is_below(path: str, gone: str) -> bool:
        return path == gone or path.startswith(gone if gone.endswith(("/", "umad")) else f"{gone}/")

    def counted(self) -> Iterator[tuple[str, str]]:
        """Counters that have grown, and files that every port has."""
        for key, folder in (("counter", "counters"), ("hw", "hw_counters")):
            for device, (name, value) in self.fault.get(key, {}).items():
                yield f"/sys/class/infiniband/{device}/ports/1/{folder}/{name}", f"{value}\n"
        for name, text in self.fault.get("ports", {}).items():
            for device in self.taken.list("/sys/class/infiniband") or ():
                yield f"/sys/class/infiniband/{device}/ports/1/{name}", f"{text}\n"

    def set(self, path: str, text: str | None) -> None:
        where = posixpath.join(self.taken.resolve(posixpath.dirname(path)), posixpath.basename(path))
        if text is None:
            del self.files[where]
        else:
            self.files[where] = text

    def change_replies(self) -> None:
        for key, times in (("edit_all", -1), ("edit", 1)):
            for line, (old, new) in self.fault.get(key, {}).items():
                reply = self.replies[line]
                assert old in reply.out, f"{line} says no {old!r}"
                self.replies[line] = replace(reply, out=reply.out.replace(old, new, times))
        for line, out in self.fault.get("replies", {}).items():
            self.replies[line] = Reply(0, out)
        for program, err in self.fault.get("fails", {}).items():
            for line in [line for line in self.replies if line.split()[0] == program]:
                self.replies[line] = Reply(9, "", f"{err}\n")
        for name, value in self.fault.get("env", {}).items():
            lines = re.sub(rf"^{name}=.*\n", "", self.replies["env"].out, flags=re.MULTILINE)
            self.replies["env"] = Reply(0, f"{lines}{name}={value}\n")


@pytest.mark.parametrize("fault", BROKEN, ids=lambda fault: fault["name"])
def test_a_fault_is_named_by_its_checks_and_by_no_others(fault: dict[str, Any]) -> None:
    """What is newly WARN or FAIL is what the fault's row says."""
    known = {(item.id, item.node) for item in said(fault["machine"]) if item.status in BAD}
    told = findings(broken(fault))
    new = [item for item in told if item.status in BAD and (item.id, item.node) not in known]
    said_of_it = "\n".join(f"{item.id} {item.evidence}" for item in new)
    assert sorted({item.id for item in new}) == sorted(fault["expect"]), said_of_it
    assert set(fault.get("passes", ())) <= {item.id for item in told if item.status is Status.OK}


def test_each_check_has_a_machine_where_it_passes_and_one_where_it_does_not() -> None:
    """No check of GPUs, RDMA and RoCE is only tried on facts made up for it; what informs only needs to pass."""
    passed = {item.id for machine in MACHINES for item in said(machine) if item.status is Status.OK}
    passed |= {name for fault in BROKEN for name in fault.get("passes", ())}
    named = {name for fault in BROKEN for name in fault["expect"]}
    assert [check.id for check in OURS if check.id not in passed] == []
    assert [check.id for check in OURS if check.severity is not Severity.INFO and check.id not in named] == []
