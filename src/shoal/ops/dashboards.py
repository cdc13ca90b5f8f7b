"""``shoal dashboards``: Prometheus and Grafana for one cluster, in a folder. What is the user's own is not touched."""

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from shoal.checks.rdma_counters import RULES
from shoal.errors import ConfigError, ShoalError, UsageError
from shoal.ops import reach
from shoal.ops.fleet.desk import desk
from shoal.ops.render import Change, found
from shoal.plan.fleet import API_KEY, PLAN, FleetPlan
from shoal.render.dashboards.alerts import Alert, Limit, alerts
from shoal.render.dashboards.stack import ENV, PASSWORD, Targets, env, files
from shoal.spec import cluster
from shoal.spec.env_table import BY_NAME
from shoal.spec.variable import is_address

AGENT_PORT, SERVE_PORT = (int(BY_NAME[name].default or 0) for name in ("SHOAL_AGENT_PORT", "SHOAL_SERVE_PORT"))
API_PORT = 8000
DATA = ("data/prometheus", "data/grafana", "key")


def targets(file: Path | None, addresses: Sequence[str], environ: Mapping[str, str]) -> Targets:
    """What is scraped: of a cluster file, of these addresses (the head first), of the file in this folder, or of the
    cluster that runs here.

    Raises:
        UsageError: a file and addresses are named, or an address is none.
    """
    if file and addresses:
        raise UsageError("both a cluster file and addresses", fix="name one of them")
    if addresses:
        return _of_addresses(addresses)
    if file or Path(cluster.DEFAULT_FILE).is_file():
        return _of_cluster(file or Path(cluster.DEFAULT_FILE), environ)
    where = reach.reach(environ)
    agents = tuple(_at(address, where.agent_port) for address in where.addresses)
    return Targets(agents, urlsplit(where.serve_url).netloc, urlsplit(where.endpoint).netloc, where.api_key_file)


def _of_addresses(addresses: Sequence[str]) -> Targets:
    for word in addresses:
        if not is_address(word):
            raise UsageError(f'"{word}" is no IP address', fix="shoal dashboards -o DIR HEAD-ADDRESS WORKER-ADDRESS...")
    agents = tuple(_at(address, AGENT_PORT) for address in addresses)
    return Targets(agents, _at(addresses[0], SERVE_PORT), _at(addresses[0], API_PORT))


def _of_cluster(file: Path, environ: Mapping[str, str]) -> Targets:
    """As it was brought up last from here, else as the file has it."""
    spec = cluster.load(file)
    place = desk(spec.cluster, environ).folder
    key = str(place / API_KEY) if (place / API_KEY).is_file() else ""
    if (plan := _plan(place / PLAN)) is not None:
        agents = tuple(_at(node.address, plan.agent_port) for node in plan.nodes)
        return Targets(agents, _at(plan.head.address, plan.serve_port), urlsplit(plan.endpoint).netloc, key)
    unknown = [host.name for host in spec.hosts if not is_address(host.fabric)]
    if unknown:
        raise ConfigError(
            f"{file}: `fabric` of {', '.join(unknown)} is auto",
            why="what is scraped is named by its address",
            fix=f"write the addresses into {file}, or name them in the call, the head's first",
        )
    head = next(host for host in spec.hosts if host.role == "head")
    host = {"fabric": head.fabric, "loopback": "127.0.0.1"}.get(spec.serving.host, spec.serving.host)
    agents = tuple(_at(one.fabric, AGENT_PORT) for one in spec.hosts)
    return Targets(agents, _at(head.fabric, SERVE_PORT), _at(host, spec.serving.port), key)


def _plan(path: Path) -> FleetPlan | None:
    try:
        return FleetPlan.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def _at(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def rules() -> tuple[Alert, ...]:
    """The alert rules, with the doctor's limits."""
    return alerts(
        [
            Limit(rule.id, rule.title, rule.counters, rule.most, rule.per, rule.mend)
            for rule in RULES
            if rule.of == "rdma"
        ]
    )


def changes(scraped: Targets, folder: Path) -> tuple[Change, ...]:
    """What would be written into ``folder``."""
    wanted = {name: text.encode() for name, text in files(scraped, rules()).items()}
    return found(folder, wanted)


def write_own(scraped: Targets, folder: Path) -> tuple[Path, ...]:
    """What is made once, and is the user's from then on: settings, a password, folders for data.

    Raises:
        ShoalError: one of them cannot be made.
    """
    try:
        user, group = _owner(scraped.key_file)
        texts = {ENV: env(scraped, f"{user}:{group}"), PASSWORD: secrets.token_urlsafe(18)}
        made = [folder / name for name, text in texts.items() if _make(folder / name, text)]
        for name in DATA:
            (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.getuid() == 0:  # the containers run as the key's owner
            for name in (*DATA, PASSWORD):
                os.chown(folder / name, user, group)
    except OSError as error:
        why = error.strerror or str(error)
        raise ShoalError(f"cannot write {folder}", why=why, fix="name another folder with -o") from error
    return tuple(made)


def _make(path: Path, text: str) -> bool:
    """Write a file that nobody else may read, unless it is there."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    return True


def _owner(key_file: str) -> tuple[int, int]:
    """Who may read the key, by number, user and group; who calls where there is none yet."""
    try:
        found = Path(key_file).stat() if key_file else None
    except OSError:
        found = None
    return (found.st_uid, found.st_gid) if found else (os.getuid(), os.getgid())
