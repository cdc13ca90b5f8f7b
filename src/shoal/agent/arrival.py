"""Before a program of ours begins on a node: its address, which at a boot comes later than the program itself.

Meanwhile the program answers on loopback, where the container's health check finds it.
"""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import psutil
from pydantic import BaseModel
from starlette.types import ASGIApp

from shoal.agent.endpoint import Endpoint, bind
from shoal.agent.preflight import address_is_local
from shoal.agent.ray_command import is_loopback
from shoal.errors import PreconditionFailed
from shoal.log import EventLog

S = TypeVar("S", bound=BaseModel)
LOOPBACK = "127.0.0.1"
LOOK_EVERY = 1.0
SAY_EVERY = 10.0


class Told(Generic[S]):
    """The status document of a program that waits; called with the words of each look."""

    def __init__(self, document: S) -> None:
        self._document = document

    def __call__(self, words: str) -> None:
        """Take the words for the document."""
        self._document = self._document.model_copy(update={"detail": words})

    def status(self) -> S:
        """The document now."""
        return self._document


def waiting_words(address: str, others: Iterable[str]) -> str:
    """What the wait for an address says."""
    seen = ", ".join(others) or "no address but loopback"
    return (
        f"waiting for the address {address}: no interface of this machine has it yet; there is {seen}. "
        "Bring the link up, or correct VLLM_HOST_IP in .env"
    )


def other_addresses() -> tuple[str, ...]:
    """This machine's addresses with their interfaces, without loopback and link-local ones."""
    families = {socket.AF_INET, socket.AF_INET6}
    return tuple(
        f"{entry.address} ({name})"
        for name, entries in sorted(psutil.net_if_addrs().items())
        for entry in entries
        if entry.family in families and not entry.address.startswith(("127.", "::1", "fe80", "169.254."))
    )


def sockets(address: str, port: int) -> list[socket.socket]:
    """Listening sockets on the address, and on loopback, where nobody else has taken the port there."""
    own = bind(address, port)
    if is_loopback(address):
        return [own]
    try:
        return [own, bind(LOOPBACK, port)]
    except PreconditionFailed:
        return [own]  # a second node on this machine, with an address of its own


async def wait_for_address(
    log: EventLog,
    address: str,
    port: int,
    app: ASGIApp,
    tell: Callable[[str], None],
    is_here: Callable[[str], bool] = address_is_local,
) -> bool:
    """Until this machine has the address, with a line every ten seconds; False where a signal ends the wait.

    ``app`` answers on loopback meanwhile; ``tell`` is given the words of each look.
    """
    if is_here(address):
        return True
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    endpoint = Endpoint(app, [bind(LOOPBACK, port)])
    endpoint.start()
    try:
        return await _look(log, address, tell, is_here, stop)
    finally:
        await endpoint.stop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _look(
    log: EventLog, address: str, tell: Callable[[str], None], is_here: Callable[[str], bool], stop: asyncio.Event
) -> bool:
    looks = 0
    while not is_here(address):
        words = waiting_words(address, other_addresses())
        tell(words)
        if looks % round(SAY_EVERY / LOOK_EVERY) == 0:
            log("preflight", words, level="warn")
        looks += 1
        try:
            await asyncio.wait_for(stop.wait(), LOOK_EVERY)
        except TimeoutError:
            continue
        return False
    if looks:
        log("preflight", f"the address {address} is there")
    return True
