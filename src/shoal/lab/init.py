"""The first process of a lab's host: it keeps the host's services running, as ``restart: unless-stopped`` does.

``python -m shoal.lab.init FILE`` reads the services from a JSON file: name, argv, env, and the log that gets their
output. Docker's pauses: 0.1 s, doubled up to a minute, forgotten once a service has lived for ten seconds.
"""

import asyncio
import json
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from shoal.agent.supervise import Child, become_subreaper, descendants, end_all, reap_orphans

SHORTEST, LONGEST, STEADY = 0.1, 60.0, 10.0
LOOK = 0.1


@dataclass(frozen=True)
class Service:
    """A program that is kept running."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    log: str


def read_services(text: str) -> tuple[Service, ...]:
    """The services of a host."""
    return tuple(Service(item["name"], tuple(item["argv"]), item["env"], item["log"]) for item in json.loads(text))


def write_services(services: tuple[Service, ...]) -> str:
    """The document that :func:`read_services` reads."""
    return json.dumps([vars(service) for service in services], indent=1) + "\n"


def pause(before: float, lived: float) -> float:
    """How long to wait before the next start, after a service that lived so long and had waited so long before."""
    return SHORTEST if lived >= STEADY else min(LONGEST, max(SHORTEST, before * 2))


async def keep(service: Service, stop: asyncio.Event, living: set[int]) -> None:
    """Start a service, and again whenever it has ended."""
    wait = 0.0
    while not stop.is_set():
        began = time.monotonic()
        child = Child.start(service.argv, env=service.env, log=Path(service.log))
        living.add(child.pid)
        while child.code is None and not stop.is_set():
            await _sleep(stop, LOOK)
        await child.stop(20.0)
        living.discard(child.pid)
        await end_strangers(living)
        wait = pause(wait, time.monotonic() - began)
        if not stop.is_set():
            await _sleep(stop, wait)


async def end_strangers(living: set[int]) -> None:
    """End what a service has left behind when it was killed, as happens to all processes of a container.

    A service adopts its own orphans. So a child of this process that is no service has outlived one.
    """
    for child in psutil.Process().children():
        if child.pid not in living:
            await end_all([child, *descendants(child.pid)], grace=0.1)


async def _sleep(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return


async def _reap(stop: asyncio.Event) -> None:
    while not stop.is_set():
        reap_orphans()
        await _sleep(stop, 1.0)


async def run(services: tuple[Service, ...]) -> None:
    """Keep all services until SIGTERM."""
    become_subreaper()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    living: set[int] = set()
    await asyncio.gather(*(keep(service, stop, living) for service in services), _reap(stop))


if __name__ == "__main__":
    asyncio.run(run(read_services(Path(sys.argv[1]).read_text(encoding="utf-8"))))
