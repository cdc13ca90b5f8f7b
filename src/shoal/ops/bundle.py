"""``shoal bundle``: what a cluster can tell of itself, gathered from its nodes into one archive without secrets."""

import base64
import json
import re
import tarfile
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

from shoal import __version__
from shoal.agent.key import derive
from shoal.errors import CommandFailed, ShoalError
from shoal.facts import sources
from shoal.host import capture, collect
from shoal.host.base import Host
from shoal.host.fanout import fanout
from shoal.host.gather import gather
from shoal.host.local import LocalHost
from shoal.render import bundle

EACH = 4 << 20  # bytes of one file, its end: a log may have grown for months
ROOM = 64 << 20  # bytes of one node
SECRETS = ("*.key", "*.token", "*.pem", "id_*")
DEADLINE = 180.0
# Whole command lines: those of others on the machine are nobody's business, and are dropped.
PROCESSES = "processes.txt"
LIST = ("ps", "-ww", "-eo", "pid,ppid,stat,lstart,rss,args")
OURS = re.compile(rb"^ *PID|ray|vllm|shoal|gcs_server")


@dataclass(frozen=True)
class Place:
    """A node of which something is to be gathered: folders by the name they get, and what commands are to print."""

    name: str
    host: Host
    folders: Mapping[str, str]
    commands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Cluster:
    """What is to be gathered: the places, and what the operator's own machine knows."""

    name: str
    places: Sequence[Place]
    files: Mapping[str, bytes] = field(default_factory=dict)
    secrets: Sequence[str] = ()


@dataclass
class Gathered:
    """What one place gave."""

    files: dict[str, bytes]
    links: dict[str, str]
    left: dict[str, str]
    secrets: list[str]

    def add(self, place: str, other: "Gathered") -> None:
        """Add what a node gave, below its name."""
        self.files |= {f"nodes/{place}/{name}": data for name, data in other.files.items()}
        self.links |= {f"nodes/{place}/{name}": target for name, target in other.links.items()}
        self.left |= {f"nodes/{place}/{name}": why for name, why in other.left.items()}
        self.secrets += other.secrets


def make(cluster: Cluster, out: Path, note: Callable[[str], None], now: float) -> tuple[bundle.Bundle, tuple[str, ...]]:
    """Write the archive; what is in it, and the nodes that could not be asked.

    Raises:
        WriteFailed: the file cannot be written.
    """
    told = fanout([place.host for place in cluster.places], _asker(cluster.places, note), deadline=DEADLINE)
    every, lost = Gathered(dict(cluster.files), {}, {}, list(cluster.secrets)), list[str]()
    for place, one in zip(cluster.places, told, strict=True):
        if isinstance(one, ShoalError):
            lost.append(f"{place.name}: {one.what}" + (f": {one.why}" if one.why else ""))
        else:
            every.add(place.name, one)
    # What nodes say to each other is signed by a key that is made of Ray's token.
    secrets = [*every.secrets, *(derive(value.strip()) for value in every.secrets if value.strip())]
    made = bundle.assemble(every.files, every.links, secrets)
    made = replace(made, left={**every.left, **made.left})
    taken = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    page = bundle.page(made, cluster=cluster.name, version=__version__, taken=taken, lost=lost)
    packed = bundle.pack({**made.files, bundle.README: page.encode()}, made.links, _top(out), now)
    LocalHost().write(str(out), packed, mode=0o600)
    return made, tuple(lost)


def _top(out: Path) -> str:
    return out.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz") or "bundle"


def _asker(places: Sequence[Place], note: Callable[[str], None]) -> Callable[[Host], Gathered]:
    by_host = {id(place.host): place for place in places}

    def ask(host: Host) -> Gathered:
        place = by_host[id(host)]
        found = taken_from(place)
        note(f"{place.name}: {len(found.files)} files")
        return found

    return ask


def taken_from(place: Place) -> Gathered:
    """What one node has: its files, and what the doctor reads of it.

    Raises:
        HostError: it could not be asked.
    """
    wanted = {
        "folders": dict(place.folders),
        "commands": {name: list(argv) for name, argv in {PROCESSES: LIST, **place.commands}.items()},
        "secrets": list(SECRETS),
        "most": EACH,
        "room": ROOM,
    }
    told = collect.collect(wanted) if isinstance(place.host, LocalHost) else _far(place.host, wanted)
    kept = {name: base64.b64decode(data) for name, data in told["files"].items()}
    kept[PROCESSES] = b"".join(line for line in kept[PROCESSES].splitlines(keepends=True) if OURS.search(line))
    found = captured(place.host)
    return Gathered(kept | found.files, found.links, dict(told["left"]), list(told["secrets"]))


def captured(host: Host) -> Gathered:
    """What the doctor reads, file by file: an archive with these is a capture too."""
    packed = capture.pack(gather(host, sources.request(None)), __version__)
    found = Gathered({}, {}, {}, [])
    with tarfile.open(fileobj=BytesIO(packed)) as tar:
        for member in tar:
            if member.issym():
                found.links[member.name] = member.linkname
            elif (file := tar.extractfile(member)) is not None:
                found.files[member.name] = file.read()
    return found


def _far(host: Host, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    source = files("shoal.host").joinpath("collect.py").read_text(encoding="utf-8")
    program = f"{source}\nanswer({json.dumps(json.dumps(wanted))})\n"
    result = host.run(("python3", "-"), timeout=DEADLINE, ok=range(256), input=program)
    line = next((line for line in result.out.splitlines() if line.startswith(collect.MARK)), "")
    try:
        told = json.loads(zlib.decompress(base64.b64decode(line.removeprefix(collect.MARK))))
    except (ValueError, zlib.error) as error:
        said = (result.err or result.out).strip().splitlines()[-1:] or ["it printed nothing"]
        raise CommandFailed(f"{host.name} could not be read", why=said[0], fix="python3 --version   # there") from error
    return dict(told)
