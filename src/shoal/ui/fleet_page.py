"""A plan for many hosts as text: each value with its reason."""

from collections.abc import Iterator, Mapping

from shoal.plan.fleet import FleetPlan, NodeDeployment, PlannedFile
from shoal.plan.fleet_changes import Changes


def page(plan: FleetPlan) -> Iterator[str]:
    """The whole plan, line by line."""
    yield f"cluster {plan.cluster}: {len(plan.nodes)} node(s), runtime {plan.runtime}, release {plan.digest}"
    yield f"  {'image' if plan.image else 'python'}  {plan.image or plan.python}"
    yield f"  model  {plan.model}"
    yield f"  split  {plan.parallel}"
    yield f"  endpoint  {plan.endpoint}"
    for node in plan.nodes:
        yield ""
        yield from _node(node)
    if plan.notes:
        yield from ("", "notes", *(f"  {note}" for note in plan.notes))


def _node(node: NodeDeployment) -> Iterator[str]:
    yield f"{node.name} ({node.role}), by ssh {node.ssh}: {node.address}   # {node.address_why}"
    yield f"  files in {node.root}/releases"
    for file in node.files:
        yield f"    {file.path} {_about(file)}   # {file.why}"
    yield "  secrets"
    for secret in node.secrets:
        yield f"    {secret.path} 0600 from {secret.source}   # {secret.why}"
    yield "  environment"
    for setting in node.environment:
        yield f"    {setting.name}={setting.value}   # {setting.why}"
    yield f"  ports  {', '.join(f'{port.port} {port.what}' for port in node.ports)}"
    for unit in node.units:
        yield f"  {unit.name} ({unit.digest})"
        yield f"    start  {' '.join(unit.start)}"
        yield f"    stop   {' '.join(unit.stop)}"
        yield f"    log    {unit.log}"
    if node.boot:
        yield f"  at a boot cron starts: {node.boot}   # a process does not come back by itself, as a container does"


def _about(file: PlannedFile) -> str:
    if file.link:
        return f"-> {file.link}"
    return f"{file.mode:04o} {f'{len(file.text.encode())} bytes' if file.text is not None else file.sha256[:12]}"


def stands(where: Mapping[str, str]) -> Iterator[str]:
    """How far the last command came, where that was not its end."""
    if where:
        yield f"the last `shoal {where['verb']}` came as far as: {where['stage']} (release {where['release']})"


def summary(planned: Changes) -> str:
    """What applying would do, in one line."""
    if planned.nothing:
        return "nothing to change: every host is as planned"
    starts = ", ".join(f"{move.unit} of {move.node}" for move in planned.starts) or "nothing"
    crontab = f"; crontab of {len(planned.boots)}" if planned.boots else ""
    return f"to push: {len(planned.push)} host(s); to switch: {len(planned.switch)}; to start: {starts}{crontab}"
