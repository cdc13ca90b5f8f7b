"""``shoal push-model``: one model, the same on every host, where the engine finds it."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from shoal.engine.models import resolve
from shoal.errors import PreconditionFailed
from shoal.facts.model_folder import INDEX, inspect
from shoal.host.base import Host
from shoal.host.local import LocalHost
from shoal.host.relay_store import Sums, scan
from shoal.ops.model_source import cached
from shoal.ops.push import hub
from shoal.ops.push.aim import addresses, models
from shoal.ops.push.look import scanned
from shoal.ops.push.transfer import Errand, Observer, Outcome, Piece, from_file, transfer
from shoal.plan.container import MODELS
from shoal.plan.models import choose
from shoal.plan.push import PORT, lacking, sending_order
from shoal.spec.cluster import ClusterSpec
from shoal.spec.environ import cache_dir
from shoal.spec.registry import ModelEntry, builtin, load


class NotThere(PreconditionFailed):
    """No host has the model."""


@dataclass(frozen=True)
class Wish:
    """What the user said. ``model`` is empty for the cluster file's own."""

    spec: ClusterSpec
    model: str = ""
    port: int = PORT
    anew: bool = False


@dataclass(frozen=True)
class Pushed:
    """What came of it; ``served`` is what the engine is told, and ``origin`` where the bytes came from."""

    served: str
    origin: str
    files: int
    outcome: Outcome


def push_model(wish: Wish, hosts: Mapping[str, Host], env: Mapping[str, str], observer: Observer) -> Pushed:
    """Bring the model to all hosts.

    Raises:
        ShoalError: it is nowhere, or is not whole.
    """
    spec = wish.spec
    registry = builtin() | (load(Path(spec.model.registry)) if spec.model.registry else {})
    entry = choose(wish.model or spec.model.name, registry, "MODEL" if wish.model else "model in the cluster file")
    store = models(spec)
    seen = MODELS if spec.runtime == "compose" else store  # where the engine sees the store
    served, origin, pieces = _found(entry, store, seen, hosts, env, observer)
    ordered = tuple(sorted(pieces, key=lambda piece: sending_order(piece.path)))
    errand = Errand(store, ordered, addresses(spec, hosts), wish.port, wish.anew)
    return Pushed(served, origin, len(ordered), transfer(hosts, errand, observer))


def _found(
    entry: ModelEntry, store: str, served: str, hosts: Mapping[str, Host], env: Mapping[str, str], observer: Observer
) -> tuple[str, str, tuple[Piece, ...]]:
    """What the engine will be told, where the model is, and its files: of this machine, of a host, or of the hub."""
    if not entry.model.startswith(("package:", "/", ".", "~")) and not Path(entry.model).expanduser().is_dir():
        return (entry.model, *_of_hub(entry.model, store, hosts, env, observer))
    inside = entry.model.removeprefix(f"{store}/").removeprefix(f"{MODELS}/").rstrip("/")
    if not inside.startswith(("package:", "/", ".", "~")) and not Path(entry.model).expanduser().is_dir():
        return (entry.model, *_on_a_host(inside, store, hosts, observer))
    here = Path(resolve(entry, cache_dir(dict(env)), LocalHost(), observer.note, sys.executable))
    name = entry.key if entry.model.startswith("package:") else here.name
    return f"{served}/{name}", str(here), _here(here, name, env, observer.note)


def _here(path: Path, target: str, env: Mapping[str, str], report: Callable[[str], None]) -> tuple[Piece, ...]:
    """A folder of this machine; it must be whole."""
    if problems := inspect(path).problems:
        raise PreconditionFailed(f"{path} is not a whole model", why="; ".join(problems), fix="get it anew")
    report(f"checksums of {path}")
    sums = Sums(str(cache_dir(dict(env)) / "sums.json"))
    files = scan(str(path), ["."], sums)
    sums.save()
    return tuple(Piece(f"{target}/{name}", size, digest, from_file(path / name)) for name, size, digest in files)


def _of_hub(
    model: str, store: str, hosts: Mapping[str, Host], env: Mapping[str, str], observer: Observer
) -> tuple[str, tuple[Piece, ...]]:
    """A model of the hub, laid out as its client does: from this machine's cache, a host's, or the hub."""
    target = f"hub/models--{model.replace('/', '--')}"
    if (snapshot := cached(model, env)) and not inspect(snapshot).problems:
        ref = hub.literal(f"{target}/refs/main", snapshot.name.encode())
        files = _here(snapshot, f"{target}/snapshots/{snapshot.name}", env, observer.note)
        return str(snapshot), (*files, ref)
    try:
        return _on_a_host(target, store, hosts, observer)
    except NotThere:
        return "the hub", hub.pieces(model, env, target, observer.note)


def _on_a_host(target: str, store: str, hosts: Mapping[str, Host], observer: Observer) -> tuple[str, tuple[Piece, ...]]:
    """The first host that has it whole, with the digests that it has of its files.

    Raises:
        NotThere: none has.
    """
    observer.note(f"looking for {target} on {len(hosts)} host(s)")
    why = ""
    for place in scanned(hosts, store, target, observer):
        commit = (hosts[place.name].read(f"{place.root}/{target}/refs/main") or "").strip()
        inside = f"{target}/snapshots/{commit}/" if commit else f"{target}/"
        kept = [file for file in place.files if file[0].startswith(inside) or file[0].endswith("/refs/main")]
        sizes = {path.removeprefix(inside): size for path, size, _ in kept}
        index = hosts[place.name].read_bytes(f"{place.root}/{inside}{INDEX}") if INDEX in sizes else None
        problems = lacking(sizes, index) if kept else ("it is not there",)
        if not problems:
            return place.name, tuple(Piece(*file) for file in kept)
        why = why or f"{place.name}: {problems[0]}"
    raise NotThere(
        f"no host has a whole {target} in {store}",
        why=why,
        fix="name a folder of this machine, or ORGANISATION/MODEL of the hub",
    )
