"""The operator's own folder of a cluster: its secrets, the last plan, and how far the last command came."""

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shoal.errors import ConfigError, PreconditionFailed
from shoal.host.base import Host
from shoal.host.local import LocalHost
from shoal.plan.fleet import API_KEY, GENERATED, PLAN, RAY_TOKEN, FleetPlan, NodeDeployment, PlannedSecret
from shoal.spec.environ import state_dir

WHERE = "where.json"
DONE = "done"


@dataclass(frozen=True)
class Desk:
    """The folder. ``env`` is where a secret of the form ``env:NAME`` comes from."""

    folder: Path
    env: Mapping[str, str]

    def make(self) -> None:
        """Make the folder, readable by its owner only.

        Raises:
            PreconditionFailed: no permission to write there.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            fix = "make it writable, or choose another folder with SHOAL_STATE_DIR"
            raise PreconditionFailed(f"cannot write to {self.folder}", why=str(error), fix=fix) from error

    def keep(self, plan: FleetPlan) -> None:
        """Keep the plan that is being applied."""
        LocalHost().write(str(self.folder / PLAN), plan.model_dump_json(indent=1) + "\n", mode=0o600)

    def note(self, verb: str, stage: str, release: str) -> None:
        """Remember how far a command came."""
        told = {"verb": verb, "stage": stage, "release": release, "at": time.time()}
        LocalHost().write(str(self.folder / WHERE), json.dumps(told) + "\n", mode=0o600)

    def where(self) -> dict[str, str]:
        """How far the last command came; empty where it came to its end, or there was none."""
        text = LocalHost().read(str(self.folder / WHERE)) or "{}"
        try:
            told = json.loads(text)
        except ValueError:
            return {}
        return told if isinstance(told, dict) and told.get("stage") != DONE else {}

    @property
    def complete(self) -> bool:
        """Whether the secrets are here that are made once for a cluster."""
        return all((self.folder / name).is_file() for name in (RAY_TOKEN, API_KEY))

    def remove(self) -> None:
        """Remove the folder, with the secrets in it."""
        for path in self.folder.glob("*"):
            path.unlink()
        if self.folder.is_dir():
            self.folder.rmdir()

    def adopt(self, head: Host, node: NodeDeployment) -> None:
        """Take over the generated secrets that a cluster has already; make those that nobody has.

        Another operator may have brought it up: what it has stays as it is.
        """
        host = LocalHost()
        for name in (RAY_TOKEN, API_KEY):
            mine = self.folder / name
            had, there = (place.read(path) or "" for place, path in ((host, str(mine)), (head, _theirs(node, name))))
            new = secrets.token_hex(32) if name == RAY_TOKEN else secrets.token_urlsafe(32)
            wanted = there.strip() or had.strip() or new
            if wanted != had.strip():
                host.write(str(mine), wanted + "\n", mode=0o600)

    def value(self, secret: PlannedSecret) -> str:
        """What a reference stands for.

        Raises:
            ConfigError: there is nothing.
        """
        kind, _, name = secret.source.partition(":")
        path = self.folder / name if kind == GENERATED else Path(name).expanduser()
        file = "" if kind == "env" else LocalHost().read(str(path)) or ""
        found = self.env.get(name, "") if kind == "env" else file
        if not found.strip():
            raise ConfigError(f"{secret.source} holds no secret", why=f"it is wanted for {secret.path}")
        return found.strip() + "\n"


def _theirs(node: NodeDeployment, name: str) -> str:
    """The secret's file on a node; that of a key which comes from elsewhere is none of ours."""
    planned = any(secret.source == f"{GENERATED}:{name}" for secret in node.secrets)
    return f"{node.root}/state/{name}" if planned else ""


def desk(cluster: str, env: Mapping[str, str]) -> Desk:
    """The folder of that cluster."""
    return Desk(state_dir(dict(env)) / "clusters" / cluster, env)
