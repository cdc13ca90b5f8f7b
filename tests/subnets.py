"""Subnets for hosts that a test makes: none that this machine has, be it its own or left by a run that was cut off."""

from itertools import count

import psutil


def free_subnet(third: int) -> str:
    """The first three numbers of a /24 of which this machine has no address: ``192.168.THIRD`` or the next free."""
    taken = {item.address.rpartition(".")[0] for items in psutil.net_if_addrs().values() for item in items}
    return next(found for n in count(third) if (found := f"192.168.{n}") not in taken)
