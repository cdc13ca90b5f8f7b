"""What applying a plan changes on hosts that stand as they do: programs to start again, and the difference. Pure."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from pydantic import ValidationError

from shoal.plan.fleet import ENV, FleetPlan, NodeDeployment, UnitName
from shoal.state.standing import Standing

UNITS: tuple[UnitName, ...] = ("engine", "agent")


@dataclass(frozen=True)
class Move:
    """A program of a node that is to be started, and why; ``runs`` where it has to be stopped before."""

    node: str
    unit: UnitName
    why: str
    runs: bool


@dataclass(frozen=True)
class Changes:
    """All that is to happen. ``ends`` are programs that the plan has no place for: (node, unit); ``boots`` are nodes
    whose cron is to learn what it starts at a boot."""

    push: tuple[str, ...]
    switch: tuple[str, ...]
    starts: tuple[Move, ...]
    ends: tuple[tuple[str, UnitName], ...]
    boots: tuple[str, ...] = ()

    @property
    def nothing(self) -> bool:
        """Whether all is as planned."""
        return not (self.push or self.switch or self.starts or self.ends or self.boots)


def changes(plan: FleetPlan, standings: Mapping[str, Standing]) -> Changes:
    """What is to happen for this plan.

    An agent that starts again takes its node out of Ray, and the engine's ranks with it: then the engine starts again
    as well, which is better planned than suffered.
    """
    agents = tuple(
        Move(node.name, "agent", why, standings[node.name].unit("agent").runs)
        for node in plan.nodes
        if (why := _why(node, "agent", standings[node.name]))
    )
    head = plan.head
    why = _why(head, "engine", standings[head.name])
    if not why and agents:
        why = f"the agent of {', '.join(move.node for move in agents)} starts again"
    engine = (Move(head.name, "engine", why, standings[head.name].unit("engine").runs),) if why else ()
    ends = tuple(
        (node.name, unit)
        for node in plan.nodes
        for unit in UNITS
        if node.unit(unit) is None and standings[node.name].unit(unit).digest
    )
    return Changes(
        push=tuple(node.name for node in plan.nodes if plan.digest not in standings[node.name].releases),
        switch=tuple(node.name for node in plan.nodes if standings[node.name].current != plan.digest),
        starts=(*agents, *engine),
        ends=ends,
        boots=tuple(
            node.name
            for node in plan.nodes
            if (seen := standings[node.name].boot).asked and not seen.why and seen.command != node.boot
        ),
    )


def not_at_boot(plan: FleetPlan, standings: Mapping[str, Standing]) -> str:
    """In words: the hosts on which nothing starts the programs again after a boot, and what changes that."""
    whys = {node.name: why for node in plan.nodes if node.boot and (why := standings[node.name].boot.why)}
    if not whys:
        return ""
    told = "; ".join(f"{', '.join(names)}: {why}" for why, names in _by_value(whys).items())
    mend = "install and start cron there (apt install cron), then: shoal up"
    return f"after a reboot of these hosts only `shoal up` starts their programs again ({told}); {mend}"


def _by_value(found: Mapping[str, str]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for name, value in found.items():
        names.setdefault(value, []).append(name)
    return names


def with_engine(planned: Changes, plan: FleetPlan, why: str) -> Changes:
    """The same changes, and the engine starts again for that reason as well."""
    if any(move.unit == "engine" for move in planned.starts):
        return planned
    return replace(planned, starts=(*planned.starts, Move(plan.head.name, "engine", why, runs=True)))


def _why(node: NodeDeployment, name: UnitName, standing: Standing) -> str:
    unit, found = node.unit(name), standing.unit(name)
    if unit is None:
        return ""
    if not found.digest:
        return "it does not run"
    if not found.runs:
        return "it has ended"
    return "what it is started with has changed" if found.digest != unit.digest else ""


def served_by(standing: Standing, plan: FleetPlan) -> bool:
    """Whether a host remembers that this plan's release has served, and keeps none that nobody needs any more."""
    needed = {plan.digest, standing.before, *(unit.release for unit in standing.units.values())}
    return standing.served == plan.digest and needed.issuperset(standing.releases)


def former(standing: Standing) -> FleetPlan | None:
    """The plan of the release that a host has now; None where there is none that can be read."""
    try:
        return FleetPlan.model_validate_json(standing.plan) if standing.plan else None
    except ValidationError:
        return None


def leaving(plan: FleetPlan, old: FleetPlan | None) -> tuple[NodeDeployment, ...]:
    """Nodes of the release before that the plan has no more."""
    names = {node.name for node in plan.nodes}
    return tuple(node for node in old.nodes if node.name not in names) if old else ()


def difference(plan: FleetPlan, standings: Mapping[str, Standing]) -> tuple[str, ...]:
    """The difference in lines, host by host; empty where there is none."""
    lines: list[str] = []
    for node in plan.nodes:
        standing = standings[node.name]
        old = former(standing)
        lines += _node(node, old.node(node.name) if old else None, standing, plan)
    lines += [f"{node.name}: no longer in the file: it is taken down" for node in leaving(plan, _any(standings))]
    planned = changes(plan, standings)
    lines += [f"{name}: {unit} is taken down: it has no place in the plan" for name, unit in planned.ends]
    lines += [
        f"{move.node}: {move.unit} {'starts again' if move.runs else 'starts'}: {move.why}" for move in planned.starts
    ]
    lines += [f"{name}: crontab: what is started at a boot" for name in planned.boots]
    return tuple(lines)


def _any(standings: Mapping[str, Standing]) -> FleetPlan | None:
    return next((plan for one in standings.values() if (plan := former(one))), None)


def _node(node: NodeDeployment, old: NodeDeployment | None, standing: Standing, plan: FleetPlan) -> Iterator[str]:
    if standing.current == plan.digest:
        return
    yield f"{node.name}: release {standing.current or '(none)'} -> {plan.digest}"
    if old is None:
        yield f"  new: {len(node.files)} files, {len(node.environment)} variables"
        return
    before = {setting.name: setting.value for setting in old.environment}
    for setting in node.environment:
        if setting.name not in before:
            yield f"  + {setting.name}={setting.value}   # {setting.why}"
        elif before[setting.name] != setting.value:
            yield f"  ~ {setting.name}: {before[setting.name]} -> {setting.value}   # {setting.why}"
    names = {setting.name for setting in node.environment}
    yield from (f"  - {name}={value}" for name, value in before.items() if name not in names)
    yield from _files(node, old)


def _files(node: NodeDeployment, old: NodeDeployment) -> Iterator[str]:
    before = {file.path: file for file in old.files}
    for file in node.files:
        known = before.pop(file.path, None)
        if file.path == ENV:
            continue  # told variable by variable
        if known is None:
            yield f"  + {file.path}   # {file.why}"
        elif file.text is None and known.sha256 != file.sha256:
            yield f"  ~ {file.path}: {known.sha256[:12]} -> {file.sha256[:12]}"
        elif known.text != file.text:
            old_lines, new_lines = (known.text or "").splitlines(), (file.text or "").splitlines()
            told = difflib.unified_diff(old_lines, new_lines, file.path, file.path, lineterm="")
            yield from (f"  {line}" for line in told)
    yield from (f"  - {path}" for path in before)
