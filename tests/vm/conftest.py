"""Two guests on one virtual cable, with real RDMA devices in them. Booted once for all tests of the level."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests.vm import image
from tests.vm.guest import Guest, free_port, set_up
from tests.vm.reading import EVERYTHING, read

from shoal.checks.run import Gathered, choose

Pair = tuple[Guest, Guest]


@pytest.fixture(scope="session")
def pair() -> Iterator[Pair]:
    """Two guests, each with 192.168.100.N on eth0 and rxe0 on that."""
    if reason := image.lacking():
        pytest.skip(reason)
    port = free_port()
    with ExitStack() as stack:
        first = stack.enter_context(Guest(1, f"listen=127.0.0.1:{port}"))
        second = stack.enter_context(Guest(2, f"connect=127.0.0.1:{port}"))
        for guest in (first, second):
            guest.wait()
            set_up(guest)
        yield first, second


@pytest.fixture(scope="session")
def healthy(pair: Pair) -> Gathered:
    """What the doctor reads of both while nothing is planted. No test leaves a fault behind."""
    return read(pair, choose(EVERYTHING))
