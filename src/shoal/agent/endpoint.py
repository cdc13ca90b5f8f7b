"""An HTTP server inside a running event loop, for the endpoints of agent and supervisor."""

import asyncio
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from shoal.errors import PreconditionFailed


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the program: SIGTERM means drain, not only the end of the HTTP server."""
        yield


def bind(address: str, port: int) -> socket.socket:
    """A listening socket on one address, never on all.

    Raises:
        PreconditionFailed: the port is taken.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((address, port))
    except OSError as error:
        sock.close()
        why = error.strerror or str(error)
        raise PreconditionFailed(f"cannot listen on {address}:{port}", why=why, fix=f"free port {port}") from error
    sock.listen(64)
    sock.setblocking(False)  # noqa: FBT003 (its only parameter)
    return sock


class Endpoint:
    """Serves an application on sockets that are bound already; :meth:`stop` ends it."""

    def __init__(self, app: ASGIApp, sockets: Sequence[socket.socket]) -> None:
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
        self._server = _Server(config)
        self._sockets = list(sockets)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to serve in the running loop."""
        self._task = asyncio.create_task(self._server.serve(sockets=self._sockets))

    async def stop(self) -> None:
        """Finish open answers and close the sockets."""
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=3)
