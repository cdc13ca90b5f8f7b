"""The socket at which this node's raylet receives its workers.

Ray keeps it below its temporary folder. Where that is cleaned, or its mount is taken away, the raylet lives on and
answers over TCP, but no worker that it starts can register any more: it finds no socket, or that of another raylet.
"""

from dataclasses import dataclass
from pathlib import Path

import psutil

from shoal.agent.supervise import descendants

OPTION = "--raylet_socket_name="


@dataclass(frozen=True)
class Socket:
    """A socket's file; device and inode tell it from another one of that name."""

    path: Path
    identity: tuple[int, int]


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        told = path.stat()
    except OSError:
        return None
    return told.st_dev, told.st_ino


def _find(pid: int) -> Socket | None:
    """The socket that a raylet below this process was told to open."""
    for process in descendants(pid):
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        for word in words:
            path = Path(word.removeprefix(OPTION))
            if word.startswith(OPTION) and (identity := _identity(path)):
                return Socket(path, identity)
    return None


class RayletSocket:
    """Remembers the socket of the Ray that runs, from the first look on."""

    def __init__(self) -> None:
        self._pid: int | None = None
        self._socket: Socket | None = None

    def trouble(self, pid: int | None) -> str:
        """Why workers cannot register with the raylet below that ``ray start``; empty where nothing is known of it."""
        if pid != self._pid:
            self._pid, self._socket = pid, None if pid is None else _find(pid)
        if self._socket is None:
            return ""
        identity = _identity(self._socket.path)
        if identity == self._socket.identity:
            return ""
        return f"its socket {self._socket.path} {'was removed' if identity is None else 'is that of another raylet'}"
