"""A sign that tells Ray's driver which raylet is this node's, where the raylet lives in another container.

Recent Ray finds the node to connect a driver to among the processes it can see: one whose name has ``raylet`` in it and
whose command line says ``--node_id=...``. It then takes address and sockets from the GCS. The supervisor's container
shares network, ``/tmp/ray`` and ``/dev/shm`` with its node's, and not the process table: that would let each end the
other's processes, and the host's. So a sleeping shell carries the line.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil

from shoal.agent.supervise import Child

SHELL = "/bin/sh"


def is_seen(node_id: str, command_lines: Iterable[Sequence[str]]) -> bool:
    """Whether one of these processes is the raylet of that node, as Ray judges it."""
    return any(line and "raylet" in Path(line[0]).name and f"--node_id={node_id}" in line[1:] for line in command_lines)


def argv(node_id: str) -> tuple[str, ...]:
    """The words of the sign; :data:`SHELL` runs them."""
    return ("raylet-sign", "-c", "while sleep 86400; do :; done", "raylet-sign", f"--node_id={node_id}")


def put_up(node_id: str | None, folder: Path) -> Child | None:
    """Start the sign where the raylet itself cannot be seen; None where it can, or is not known."""
    if node_id is None or is_seen(node_id, (process.info["cmdline"] or () for process in _processes())):
        return None
    return Child.start(argv(node_id), executable=SHELL, env={"PATH": "/usr/bin:/bin"}, log=folder / ".raylet-sign.log")


def _processes() -> Iterable[psutil.Process]:
    found: Iterable[psutil.Process] = psutil.process_iter(["cmdline"])
    return found
