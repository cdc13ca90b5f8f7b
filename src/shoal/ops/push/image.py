"""``shoal push-image``: one image, the same on every host. It is saved once, pushed as a file, and loaded by each."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shoal.errors import CommandFailed, HostError, PreconditionFailed, ShoalError
from shoal.host.base import Host, Result
from shoal.host.fanout import fanout
from shoal.host.local import LocalHost
from shoal.host.relay_store import Sums
from shoal.host.tied import tied
from shoal.ops.push.aim import addresses, folder
from shoal.ops.push.look import scanned
from shoal.ops.push.transfer import Errand, Observer, Outcome, Piece, from_file, transfer
from shoal.plan.push import PORT, same_image
from shoal.spec.cluster import ClusterSpec
from shoal.spec.environ import cache_dir

ASK = 60.0  # seconds for a question to Docker
LONG = 7200.0  # seconds for a pull, a save or a load of some ten GB
HERE = "this machine"
Image = Mapping[str, Any]


@dataclass(frozen=True)
class Wish:
    """What the user said. ``image`` is empty for the cluster file's own."""

    spec: ClusterSpec
    image: str = ""
    port: int = PORT


@dataclass(frozen=True)
class Pushed:
    """What came of it: the image's id, its layers, and where it came from."""

    image: str
    id: str
    layers: int
    origin: str
    outcome: Outcome


def push_image(wish: Wish, hosts: Mapping[str, Host], env: Mapping[str, str], observer: Observer) -> Pushed:
    """Bring the image to all hosts.

    Raises:
        ShoalError: it is nowhere, is for another architecture, or a Docker does not answer.
    """
    name, spec = _by_tag(wish.image or wish.spec.image), wish.spec
    observer.note(f"looking for {name} on {len(hosts)} host(s)")
    there = _asked(name, hosts)
    origin, image = _origin(name, hosts, there, observer)
    lost = {host: answer for host, answer in there.items() if isinstance(answer, ShoalError)}
    lacking = [
        host
        for host, answer in there.items()
        if host not in lost and host != origin and not (isinstance(answer, dict) and same_image(answer, image))
    ]
    _same_machine(image, name, {host: hosts[host] for host in lacking})
    outcome = Outcome(tuple(host for host in hosts if host not in lost), {}, 0, {}, 0.0)
    if lacking:
        members = {host: hosts[host] for host in hosts if host in lacking or host == origin}
        outcome = _push(name, image, origin, members, wish, addresses(spec, members), env, observer)
    done = tuple(host for host in hosts if host not in lost and host not in outcome.failed)
    layers = image.get("RootFS", {}).get("Layers") or ()
    kept = replace(outcome, done=done, failed={**lost, **outcome.failed})
    return Pushed(name, str(image["Id"]), len(layers), origin, kept)


def _asked(name: str, hosts: Mapping[str, Host]) -> dict[str, Image | ShoalError | None]:
    """The image as each host has it; None where it has none."""
    answers = fanout(tuple(hosts.values()), lambda host: inspect(host, name), deadline=ASK + 30)
    return dict(zip(hosts, answers, strict=True))


def inspect(host: Host, name: str) -> Image | None:
    """The image as Docker tells it; None where there is none of that name.

    Raises:
        HostError: there is no Docker, or it does not answer.
    """
    told = host.run(("docker", "image", "inspect", "--", name), timeout=ASK, ok=range(256))
    if told.code == 0:
        return dict(json.loads(told.out)[0])
    if "no such image" in told.err.lower():
        return None
    fix = f"on {host.name}: docker info   # install it, start it, or let this user in: sudo usermod -aG docker $USER"
    raise CommandFailed(f"{host.name} has no Docker that answers", why=_last(told), fix=fix)


def _last(told: Result) -> str:
    """The last thing that a command said."""
    return ((told.err or told.out).strip().splitlines() or [f"it ended with code {told.code}, and said nothing"])[-1]


def _by_tag(name: str) -> str:
    if "@" in name:
        raise PreconditionFailed(
            f"{name} is named by its digest in a registry, which an image that was loaded does not have",
            fix=f"docker tag {name} {name.partition('@')[0]}:pushed   # and name that one",
        )
    return name


def _origin(
    name: str, hosts: Mapping[str, Host], there: Mapping[str, Image | ShoalError | None], observer: Observer
) -> tuple[str, Image]:
    """Who gives it: this machine, the first host that has it, or the first one that can pull it."""
    try:
        image = inspect(LocalHost(), name)
    except HostError:
        image = None  # this machine needs no Docker
    if image is not None:
        return HERE, image
    for host, answer in there.items():
        if isinstance(answer, dict):
            return host, answer
    why = ""
    for host, answer in there.items():
        if answer is None:
            observer.note(f"{host} pulls {name}")
            told = tied(hosts[host], ("docker", "pull", "--quiet", "--", name), timeout=LONG)
            if told.code == 0 and (pulled := inspect(hosts[host], name)) is not None:
                return host, pulled
            why = why or f"{host}: {_last(told)}"
    raise PreconditionFailed(
        f"nobody has the image {name}, and no host could pull it",
        why=why or "no host has a Docker that answers",
        fix=f"docker login, then docker pull {name}, here or on one host; a private registry needs a login",
    )


def _same_machine(image: Image, name: str, hosts: Mapping[str, Host]) -> None:
    """An image of another architecture would be loaded, and would not run."""
    ask = ("docker", "version", "--format", "{{.Server.Arch}}")
    answers = fanout(tuple(hosts.values()), lambda host: host.run(ask, timeout=ASK).out.strip(), deadline=ASK + 30)
    made = str(image.get("Architecture"))
    others = [f"{host} ({arch})" for host, arch in zip(hosts, answers, strict=True) if arch != made]
    for answer in answers:
        if isinstance(answer, ShoalError):
            raise answer
    if others:
        raise PreconditionFailed(
            f"{name} is made for {made}, and does not run on {', '.join(others)}",
            fix=f"docker pull --platform linux/{others[0].rpartition('(')[2].rstrip(')')} {name}   # then push it",
        )


def _push(
    name: str,
    image: Image,
    origin: str,
    members: Mapping[str, Host],
    wish: Wish,
    known: Mapping[str, str],
    env: Mapping[str, str],
    observer: Observer,
) -> Outcome:
    """Save it where it is, push the file, load it on each, and take the file away again."""
    store, tar = folder(wish.spec, "images"), f"{str(image['Id']).removeprefix('sha256:')[:32]}.tar"
    observer.note(f"{origin} saves {name}")
    piece = _saved_here(name, tar, env) if origin == HERE else _saved_there(name, tar, members[origin], store, observer)
    outcome = transfer(members, Errand(store, (piece,), known, wish.port), observer)
    failed = dict(outcome.failed)
    loading = {host: members[host] for host in outcome.done if host != origin}
    observer.note(f"{len(loading)} host(s) load it")
    answers = fanout(tuple(loading.values()), lambda host: _load(host, name, image, store, tar), deadline=LONG + 60)
    failed |= {host: error for host, error in zip(loading, answers, strict=True) if isinstance(error, ShoalError)}
    if not failed:  # else the next try goes on with it
        _remove(members, origin, store, tar, env)
    return replace(outcome, done=tuple(host for host in outcome.done if host not in failed), failed=failed)


def _saved_here(name: str, tar: str, env: Mapping[str, str]) -> Piece:
    path = _tar_here(tar, env)
    path.parent.mkdir(parents=True, exist_ok=True)
    _save(LocalHost(), name, str(path))
    digest = Sums(str(path.parent / "sums.json")).of(str(path))
    return Piece(tar, path.stat().st_size, digest, from_file(path))


def _tar_here(tar: str, env: Mapping[str, str]) -> Path:
    return cache_dir(dict(env)) / "images" / tar


def _saved_there(name: str, tar: str, host: Host, store: str, observer: Observer) -> Piece:
    _save(host, name, f"{_home(host, store)}/{tar}")
    (place,) = scanned({host.name: host}, store, tar, observer)
    return Piece(*place.files[0])


SAVE = (
    'mkdir -p "${1%/*}" && { [ -s "$1" ] || { trap \'rm -f -- "$1.part"\' EXIT; trap "exit 143" TERM; '
    'docker save -- "$0" > "$1.part" && mv -f -- "$1.part" "$1"; }; }'
)


def _save(host: Host, name: str, path: str) -> None:
    """Save it to a file that has its name when it is whole; one that is there already is it."""
    told = tied(host, ("sh", "-c", SAVE, name, path), timeout=LONG)
    if told.code:
        fix = f"on {host.name}: df -h {path.rpartition('/')[0]}; the saved image needs as much room as the image"
        raise PreconditionFailed(f"{host.name} cannot save {name}", why=_last(told), fix=fix)


def _home(host: Host, path: str) -> str:
    """A path with the login's home in place of ``~``."""
    home = host.run(("sh", "-c", 'printf %s "$HOME"'), timeout=ASK).out
    return path.replace("~", home, 1)


def _load(host: Host, name: str, image: Image, store: str, tar: str) -> None:
    """Load it, take the file away, and look whether it is the one that was meant."""
    path = f"{_home(host, store)}/{tar}"
    told = tied(host, ("docker", "load", "--quiet", "--input", path), timeout=LONG)
    if told.code:
        fix = f"on {host.name}: docker info; df -h /var/lib/docker   # then run it again"
        raise PreconditionFailed(f"{host.name} cannot load {name}", why=_last(told), fix=fix)
    host.run(("rm", "-f", "--", path), timeout=ASK)
    loaded = inspect(host, name)
    if loaded is None or not same_image(loaded, image):
        raise PreconditionFailed(
            f"{host.name} has another {name} after it was loaded",
            why=f"expected {image['Id']}, found {loaded['Id'] if loaded else 'none'}",
            fix=f"on {host.name}: docker image inspect {name}; then run it again",
        )


def _remove(members: Mapping[str, Host], origin: str, store: str, tar: str, env: Mapping[str, str]) -> None:
    if origin == HERE:
        _tar_here(tar, env).unlink(missing_ok=True)
    else:
        host = members[origin]
        host.run(("rm", "-f", "--", f"{_home(host, store)}/{tar}"), timeout=ASK)
