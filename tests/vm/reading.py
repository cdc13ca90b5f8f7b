"""Both guests read at once, with the patience that an emulated machine on a busy one needs."""

from collections.abc import Sequence
from dataclasses import replace

from tests.vm.guest import Guest

from shoal.checks.run import Choice, Chosen, Gathered
from shoal.host.fanout import fanout
from shoal.host.gather import Request, gather
from shoal.host.snapshot import Snapshot

# Soft-RoCE tells a rate of its own, whatever its interface has; an emulated clock runs as its machine lets it.
EVERYTHING = Choice(only=("rdma", "roce", "cross"), ignore=("roce.speed", "cross.clock"))
PATIENCE = 120.0


def patient(request: Request) -> Request:
    """The same request where a program takes seconds to start."""
    slow = tuple(replace(item, timeout=90) for item in request.commands)
    return replace(request, commands=slow, deadline=PATIENCE)


def read(guests: Sequence[Guest], chosen: Chosen) -> Gathered:
    """What the chosen checks need of each."""
    wanted = patient(chosen.request())
    told = fanout(guests, lambda guest: gather(guest, wanted), deadline=2 * PATIENCE)
    return Gathered(tuple(answer for answer in told if isinstance(answer, Snapshot)))
