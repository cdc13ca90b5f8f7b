"""A machine read in one trip: in this process for this machine, by a small program for any other."""

import base64
import json
import time
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from typing import Any

from shoal.errors import CommandFailed
from shoal.host import probe
from shoal.host.base import Host
from shoal.host.local import LocalHost
from shoal.host.snapshot import Reply, Snapshot

GRACE = 10.0  # seconds for the way there and back, and for Python to start


@dataclass(frozen=True)
class Command:
    """A command with its deadline in seconds. ``{}`` in it stands for each name that ``each`` matches, or for the
    machine's own name; of its output only lines with ``keep`` are wanted; ``other`` is asked where it fails."""

    argv: tuple[str, ...]
    timeout: float = 5
    each: str = ""
    keep: str = ""
    other: tuple[tuple[str, ...], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As the probe takes it."""
        return {"argv": self.argv, "timeout": self.timeout, "each": self.each, "keep": self.keep, "or": self.other}


@dataclass(frozen=True)
class Request:
    """What is to be read: files by pattern, names that only need to be seen, devices to open, commands.

    ``own`` is what the probe answers without a program. ``deadline`` in seconds is for all of it together.
    """

    files: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    commands: tuple[Command, ...] = ()
    own: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    deadline: float = 20

    def as_dict(self) -> dict[str, Any]:
        """As the probe takes it."""
        return asdict(self) | {"commands": [item.as_dict() for item in self.commands]}


def gather(host: Host, request: Request) -> Snapshot:
    """The machine as it is now.

    Raises:
        HostError: it could not be asked, or has no python3.
    """
    wanted = json.loads(json.dumps(request.as_dict()))
    told = probe.look(wanted) if isinstance(host, LocalHost) else _far(host, wanted, request.deadline)
    return snapshot(host.name, told, asked=time.time())


def program(request: Mapping[str, Any]) -> str:
    """The probe with its request, as one text for ``python3 -``."""
    source = files("shoal.host").joinpath("probe.py").read_text(encoding="utf-8")
    return f"{source}\nanswer({json.dumps(json.dumps(request))})\n"


def _far(host: Host, request: Mapping[str, Any], deadline: float) -> Mapping[str, Any]:
    result = host.run(("python3", "-"), timeout=deadline + GRACE, ok=range(256), input=program(request))
    if result.code == 127:
        why = (result.err or "it has no python3").strip().splitlines()[-1]
        raise CommandFailed(
            f"{host.name} cannot be read: it has no python3", why=why, fix="sudo apt install python3   # there"
        )
    line = next((line for line in result.out.splitlines() if line.startswith(probe.MARK)), "")
    told = _unpacked(line.removeprefix(probe.MARK))
    if told is None:
        said = (result.err or result.out).strip().splitlines()[-1:] or ["it printed nothing"]
        raise CommandFailed(
            f"{host.name} could not be read: python3 ended with code {result.code}",
            why=said[0],
            fix="python3 --version   # there",
        )
    return told


def unpacked(name: str, packed: str) -> Snapshot:
    """The machine of that name, as the probe packed it on its way with other steps.

    Raises:
        CommandFailed: it is not whole.
    """
    told = _unpacked(packed)
    if told is None:
        raise CommandFailed(f"{name} could not be read: its answer is not whole", fix="python3 --version   # there")
    return snapshot(name, told, asked=time.time())


def _unpacked(packed: str) -> dict[str, Any] | None:
    """The probe's answer; None where it is not there, or not whole."""
    try:
        told = json.loads(zlib.decompress(base64.b64decode(packed, validate=True)))
    except (ValueError, zlib.error):
        return None
    return told if isinstance(told, dict) else None


def snapshot(name: str, told: Mapping[str, Any], *, asked: float | None) -> Snapshot:
    """What the probe told, as a snapshot."""
    return Snapshot(
        name,
        files=told["files"],
        links=told["links"],
        errors=told["errors"],
        replies={line: Reply(*reply) for line, reply in told["replies"].items()},
        looked=tuple(told["looked"]),
        taken=told["taken"],
        asked=asked,
    )


def late(taken: Snapshot) -> tuple[str, ...]:
    """What did not end in time on that machine: commands by their own words, files by their paths."""
    hung = tuple(reply.err for reply in taken.replies.values() if reply.code == 124)
    return hung + tuple(
        f"{path} could not be read in time" for path, error in taken.errors.items() if error == "ETIMEDOUT"
    )
