"""A plan carried out: pushed beside the old release, switched at once, programs started again where they must be.

Each stage ends on all hosts before the next begins. Until every host has the release, none is switched; the switch is
a rename on each, and is taken back where one host refuses.
"""

import base64
import hashlib
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from shoal.errors import PreconditionFailed, ShoalError
from shoal.host.base import Host
from shoal.host.fanout import fanout
from shoal.host.send import carry_out, data
from shoal.ops import pyz
from shoal.ops.fleet.planning import every
from shoal.plan.fleet import API_KEY, PLAN, PYZ, FleetPlan, NodeDeployment, PlannedSecret
from shoal.plan.fleet_changes import Changes, Move
from shoal.plan.fleet_node import GRACE, container, project, start_step
from shoal.state.standing import Standing

DEADLINE = 300.0  # seconds for one host in one stage
DRAIN = 25.0  # seconds for a process to drain and end; a container has its own
Stage = Callable[[str], None]


@dataclass(frozen=True)
class Fleet:
    """The hosts of a plan, by name, and what is said of each stage."""

    plan: FleetPlan
    hosts: Mapping[str, Host]
    stage: Stage

    def on(self, names: Sequence[str], work: Callable[[NodeDeployment, Host], Any]) -> dict[str, Any]:
        """Do something on several hosts at once; all of them answer, or an error names those that do not."""
        nodes = {name: node for name in names if (node := self.plan.node(name))}
        there = [self.hosts[name] for name in nodes]
        answers = fanout(there, lambda host: work(nodes[host.name], host), deadline=DEADLINE)
        return every(there, answers)


def check_images(plan: FleetPlan, standings: Mapping[str, Standing], file: Path) -> None:
    """Refuse where a host lacks the image, or has another one under its name.

    Raises:
        PreconditionFailed: with the hosts, and what brings the image there.
    """
    if plan.runtime != "compose":
        return
    found = {node.name: standings[node.name].docker.image for node in plan.nodes}
    if missing := [name for name, image in found.items() if not image]:
        raise PreconditionFailed(
            f"{plan.image} is not on {', '.join(missing)}",
            why="nothing is downloaded while a cluster starts",
            fix=f"shoal push-image -f {file}   # once, and from there from host to host",
        )
    kinds: dict[str, list[str]] = {}
    for name, image in found.items():
        kinds.setdefault(image, []).append(name)
    if len(kinds) > 1:
        told = "; ".join(f"{', '.join(names)}: {image.split()[0][:19]}" for image, names in kinds.items())
        raise PreconditionFailed(
            f"{plan.image} is not the same image everywhere",
            why=f"{told} (config and layers are compared)",
            fix=f"ssh HOST docker rmi {plan.image}   # where it is the wrong one; then: shoal push-image -f {file}",
        )


def push(fleet: Fleet, names: Sequence[str], standings: Mapping[str, Standing]) -> None:
    """Bring the release to these hosts, beside the one that they have."""
    if not names:
        return
    fleet.stage(f"pushing release {fleet.plan.digest} to {len(names)} host(s)")
    archive = pyz.build()

    def work(node: NodeDeployment, host: Host) -> None:
        step = {"do": "push", "release": fleet.plan.digest, "files": _files(fleet.plan, node, standings, archive)}
        carry_out(host, node.root, [step], timeout=DEADLINE - 30)

    fleet.on(names, work)


def _files(
    plan: FleetPlan, node: NodeDeployment, standings: Mapping[str, Standing], archive: bytes
) -> dict[str, dict[str, Any]]:
    told: dict[str, dict[str, Any]] = {
        PLAN: {"data": data((plan.model_dump_json(indent=1) + "\n").encode()), "mode": 0o600}
    }
    for file in node.files:
        alike = [name for name, digest in standings[node.name].pyz.items() if digest and digest == file.sha256]
        if file.link:
            told[file.path] = {"link": file.link}
        elif file.path == PYZ and alike:
            told[file.path] = {"like": f"{alike[0]}/{PYZ}"}
        else:
            content = archive if file.text is None else file.text.encode()
            told[file.path] = {"data": base64.b64encode(content).decode(), "mode": file.mode}
    return told


def stale(plan: FleetPlan, standings: Mapping[str, Standing], value: Callable[[PlannedSecret], str]) -> list[str]:
    """Nodes that lack a secret, or have another one."""
    return [
        node.name
        for node in plan.nodes
        if any(_digest(standings[node.name], secret) != sha(value(secret)) for secret in node.secrets)
    ]


def new_key(plan: FleetPlan, standing: Standing, value: Callable[[PlannedSecret], str]) -> bool:
    """Whether the head has a key already, and is to have another one."""
    key = next(secret for secret in plan.head.secrets if secret.path.endswith(API_KEY))
    return _digest(standing, key) not in {"", sha(value(key))}


def _digest(standing: Standing, secret: PlannedSecret) -> str:
    return standing.secrets.get(secret.path.rpartition("/")[2], "")


def sha(text: str) -> str:
    """The digest by which a secret is compared without being sent."""
    return hashlib.sha256(text.encode()).hexdigest()


def hand_over(fleet: Fleet, names: Sequence[str], value: Callable[[PlannedSecret], str]) -> None:
    """Give hosts the secrets that they need, by way of ssh's input: in no argv, and in no file but theirs."""
    if not names:
        return
    fleet.stage("handing over the secrets")

    def work(node: NodeDeployment, host: Host) -> None:
        files = {secret.path.rpartition("/")[2]: value(secret) for secret in node.secrets}
        carry_out(host, node.root, [{"do": "secrets", "files": files}])

    fleet.on(names, work)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep Ctrl-C for afterwards: what is between is a matter of a second, and is not to be left half done."""
    pressed: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        del frame
        pressed.append(number)

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed:
            raise KeyboardInterrupt


def switch(fleet: Fleet, names: Sequence[str]) -> None:
    """Let the release be the current one, on all of these hosts or on none.

    Raises:
        ShoalError: a host refused; the others have been switched back.
    """
    if not names:
        return
    fleet.stage(f"switching {len(names)} host(s)")
    nodes = {name: node for name in names if (node := fleet.plan.node(name))}
    there = [fleet.hosts[name] for name in nodes]

    def to(release: Mapping[str, str]) -> Callable[[Host], str]:
        def work(host: Host) -> str:
            step = {"do": "switch", "release": release[host.name]}
            return str(carry_out(host, nodes[host.name].root, [step])[0])

        return work

    with undisturbed():
        answers = fanout(there, to(dict.fromkeys(nodes, fleet.plan.digest)), deadline=DEADLINE)
        done = {host.name: str(told) for host, told in zip(there, answers, strict=True) if isinstance(told, str)}
        if len(done) < len(there):
            back = [host for host in there if host.name in done]
            undone = fanout(back, to(done), deadline=DEADLINE)
            stuck = [host.name for host, told in zip(back, undone, strict=True) if isinstance(told, ShoalError)]
            if stuck:
                fleet.stage(f"not switched back on {', '.join(stuck)}")
            every(there, answers)


def end(fleet: Fleet, units: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Stop programs: the engine, then workers' agents, then the head's. Those that ran."""
    head, ended = fleet.plan.head.name, []
    groups = (
        [item for item in units if item[1] == "engine"],
        [item for item in units if item[1] == "agent" and item[0] != head],
        [item for item in units if item[1] == "agent" and item[0] == head],
    )
    for group in groups:
        if group:
            unit = group[0][1]
            fleet.stage(f"stopping {unit} of {', '.join(name for name, _ in group)}")
            ran = fleet.on([name for name, _ in group], partial(stop, fleet.plan, unit))
            ended += [(name, unit) for name, yes in ran.items() if yes]
    return ended


def stop(plan: FleetPlan, unit: str, node: NodeDeployment, host: Host) -> bool:
    """Stop one program; whether it ran."""
    step: dict[str, Any] = {"do": "stop", "unit": unit, "grace": DRAIN}
    if plan.runtime == "compose":
        step |= {"container": container(unit, node.role), "project": project(plan.cluster), "grace": GRACE}
    return bool(carry_out(host, node.root, [step], timeout=step["grace"] + 60)[0])


def begin(fleet: Fleet, moves: Sequence[Move]) -> None:
    """Start programs: all agents, which wait for their head, and then the engine."""
    for name in ("agent", "engine"):
        wanted = [move.node for move in moves if move.unit == name]
        if wanted:
            fleet.stage(f"starting {name} on {', '.join(wanted)}")
            fleet.on(wanted, partial(start, fleet.plan, name))


def start(plan: FleetPlan, name: str, node: NodeDeployment, host: Host) -> None:
    """Start one program, and write down that it was."""
    unit = node.unit(name)
    assert unit is not None  # only what the plan has is moved
    if plan.runtime == "process":
        carry_out(host, node.root, [start_step(plan, node, unit)])
        return
    host.run(unit.start, timeout=180)
    step = {"do": "note", "unit": name, "release": plan.digest, "digest": unit.digest}
    carry_out(host, node.root, [step | {"container": container(name, node.role)}])


def at_boot(fleet: Fleet, names: Sequence[str]) -> None:
    """Let the hosts start the programs again after a boot."""
    if not names:
        return
    fleet.stage(f"writing into the crontab of {', '.join(names)} what is started at a boot")
    fleet.on(names, lambda node, host: carry_out(host, node.root, [{"do": "boot", "command": node.boot}]))


def carry(fleet: Fleet, planned: Changes) -> None:
    """Stop what has to be stopped, start what has to be started."""
    running = [(move.node, str(move.unit)) for move in planned.starts if move.runs]
    end(fleet, [*running, *((name, str(unit)) for name, unit in planned.ends)])
    begin(fleet, planned.starts)


def remember(fleet: Fleet) -> None:
    """Write down on every host that this release has answered."""
    step = {"do": "served", "release": fleet.plan.digest}
    fleet.on([node.name for node in fleet.plan.nodes], lambda node, host: carry_out(host, node.root, [step]))
