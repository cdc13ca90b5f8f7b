"""Write a deployment folder: what would change is known before anything is written, and ``.env`` is never touched."""

import difflib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shoal.errors import ConfigError, ShoalError, UsageError
from shoal.ops import pyz
from shoal.ops.fleet.planning import prepare
from shoal.plan.container import Profile, Role, plan_container
from shoal.plan.fleet import ENV, GENERATED, NodeDeployment, PlannedSecret
from shoal.render.compose import REGISTRY, files
from shoal.spec import cluster
from shoal.spec.nearest import did_you_mean

PYZ = "shoal.pyz"
MODES = {PYZ: 0o755, ENV: 0o600}


@dataclass(frozen=True)
class Change:
    """A file that is to be written. ``old`` is None where there is none yet."""

    path: Path
    old: bytes | None
    new: bytes

    def diff(self) -> str:
        """A unified diff; for a file that is no text, one line with both sizes."""
        if self.old is None:
            return ""
        if self.path.name == PYZ:
            return f"{self.path}: {len(self.old)} bytes, to be replaced by {len(self.new)} bytes of this version\n"
        before, after = (data.decode("utf-8", errors="replace").splitlines() for data in (self.old, self.new))
        lines = difflib.unified_diff(before, after, str(self.path), f"{self.path} (new)", lineterm="")
        return "\n".join(lines) + "\n"


def changes(role: Role, profile: Profile, folder: Path) -> tuple[Change, ...]:
    """What rendering into ``folder`` would write; nothing where all of it is there already.

    A registry that is there is the user's own.
    """
    texts = files(plan_container(role, profile))
    wanted = {name: text.encode() for name, text in texts.items()} | {PYZ: pyz.build()}
    kept = folder / REGISTRY
    return tuple(change for change in found(folder, wanted) if change.old is None or change.path != kept)


def node_changes(node: NodeDeployment, folder: Path) -> tuple[Change, ...]:
    """What rendering a planned node into ``folder`` would write. A ``.env`` that is there is the user's own."""
    wanted = {item.path: item.text.encode() for item in node.files if item.text is not None} | {PYZ: pyz.build()}
    kept = folder / ENV
    return tuple(change for change in found(folder, wanted) if change.old is None or change.path != kept)


def planned_node(file: Path, name: str, env: Mapping[str, str], folder: Path) -> tuple[NodeDeployment, tuple[str, ...]]:
    """The node as `shoal plan` has it, and the commands that put its secrets into the folder.

    Raises:
        UsageError: there is no such host, or no containers are planned.
        ShoalError: a host could not be asked, or is not fit.
    """
    spec = cluster.load(file)
    names = [host.name for host in spec.hosts]
    if name not in names:
        raise UsageError(
            f'{file} has no host "{name}"', why=did_you_mean(name, names), fix=f"hosts: {', '.join(names)}"
        )
    if spec.runtime != "compose":
        raise UsageError(f"{file}: runtime: {spec.runtime} has no containers", fix="runtime: compose")
    chair = prepare(file, env)
    chair.desk.make()
    chair.desk.adopt(chair.hosts[chair.plan.head.name], chair.plan.head)
    node = next(node for node in chair.plan.nodes if node.name == name)
    return node, tuple(_install(secret, chair.desk.folder, folder) for secret in node.secrets)


def _install(secret: PlannedSecret, desk: Path, folder: Path) -> str:
    """The command that puts a secret, which stands in no rendered file, where the containers look for it."""
    kind, _, name = secret.source.partition(":")
    target = shlex.quote(str(folder / secret.path))
    if kind == "env":
        return f'printf %s "${name}" | install -D -m 600 /dev/stdin {target}'
    return f"install -D -m 600 {shlex.quote(str(desk / name if kind == GENERATED else name))} {target}"


def found(folder: Path, wanted: Mapping[str, bytes]) -> tuple[Change, ...]:
    """What of these files, by their names in ``folder``, is not there as it is wanted."""
    looked = ((folder / name, _read(folder / name), data) for name, data in wanted.items())
    return tuple(Change(path, old, new) for path, old, new in looked if old != new)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        why = error.strerror or str(error)
        raise ConfigError(f"cannot read {path}", why=why, fix="name another folder with -o") from error


def diff(planned: tuple[Change, ...]) -> str:
    """What would be overwritten, as one text; empty where every file is new."""
    return "".join(change.diff() for change in planned)


def write(planned: tuple[Change, ...]) -> None:
    """Write the files, each in one step.

    Raises:
        ShoalError: a file cannot be written; those before it are.
    """
    for change in planned:
        part = change.path.with_name(f".{change.path.name}.part")
        try:
            change.path.parent.mkdir(parents=True, exist_ok=True)
            part.touch(mode=MODES.get(change.path.name, 0o644))  # from its first byte on
            part.write_bytes(change.new)
            part.chmod(MODES.get(change.path.name, 0o644))
            part.replace(change.path)
        except OSError as error:
            why = error.strerror or str(error)
            raise ShoalError(f"cannot write {change.path}", why=why, fix="name another folder with -o") from error
