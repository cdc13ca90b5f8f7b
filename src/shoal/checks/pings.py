"""Pings that may not be split, both ways on every rail: which are sent, and what their answers say."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from shoal.checks.cross_fabric import End, rails
from shoal.facts.node import Fleet, Ping
from shoal.host.gather import Command, Request
from shoal.host.snapshot import Snapshot

HEADERS = 28  # bytes of IPv4 and ICMP around a ping's own
SMALL = 56
EVERYBODY = 8  # nodes up to which each pings each; beyond, each pings its two neighbours in the list
PATIENCE = 1  # seconds
TIMEOUT = 4.0


@dataclass(frozen=True)
class Way:
    """From one end of a rail to another."""

    source: End
    target: End

    def line(self, size: int) -> tuple[str, ...]:
        """The command that sends one ping with that many bytes of its own."""
        words = ("ping", "-n", "-c", "1", "-W", str(PATIENCE), "-M", "do", "-s", str(size))
        return (*words, "-I", self.source.ip, self.target.ip)

    @property
    def mtu(self) -> int:
        """What the source's interface says that it sends."""
        return self.source.dev.mtu or 0


def ways(fleet: Fleet) -> tuple[Way, ...]:
    """Both ways between the nodes of each rail."""
    found = rails(fleet).values()
    return tuple(Way(source, target) for ends in found for source, target in _pairs(ends) if source.dev.mtu)


def _pairs(members: list[End]) -> Iterable[tuple[End, End]]:
    count = len(members)
    for place, source in enumerate(members):
        near = {(place + 1) % count, (place - 1) % count}
        for other, target in enumerate(members):
            if source.node.name != target.node.name and (count <= EVERYBODY or other in near):
                yield source, target


def request(node: str, wanted: Iterable[Way]) -> Request:
    """All pings of one node, in one trip."""
    mine = [way for way in wanted if way.source.node.name == node]
    lines = [line for way in mine for line in (way.line(way.mtu - HEADERS), way.line(SMALL))]
    return Request(commands=tuple(Command(line, TIMEOUT) for line in dict.fromkeys(lines)), deadline=TIMEOUT * 10)


def answers(wanted: Iterable[Way], told: Mapping[str, Snapshot]) -> tuple[Ping, ...]:
    """What became of each; a node without the program, or that did not answer itself, tells nothing."""
    found = []
    for way in wanted:
        taken = told.get(way.source.node.name)
        big = taken.reply(*way.line(way.mtu - HEADERS)) if taken else None
        small = taken.reply(*way.line(SMALL)) if taken else None
        if big and small and 127 not in {big.code, small.code}:
            found.append(
                Ping(
                    way.source.node.name,
                    way.target.node.name,
                    way.source.ip,
                    way.target.ip,
                    way.source.dev.name,
                    way.mtu,
                    big.code == 0,
                    small.code == 0,
                )
            )
    return tuple(found)
