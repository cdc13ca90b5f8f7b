"""Files brought to many hosts: looked at, sent to the first, passed on by the others, checked by each."""

import getpass
import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

from shoal.errors import HostUnreachable, PreconditionFailed, ShoalError
from shoal.host.base import Host
from shoal.host.relay_store import File
from shoal.ops.push.party import Party, Peer, Report
from shoal.plan.push import CHAIR, PORT, missing, order, upstreams

FRAME = 1 << 20
# Seconds in which a host gets nothing, though the one before it has more: where the way to it is broken, and where all
# looks well, since a slow disk that takes a large file in may be silent for minutes.
STALL, SILENCE = 60.0, 300.0

Heard: TypeAlias = "queue.SimpleQueue[tuple[str, Report | None]]"


@dataclass(frozen=True)
class Piece:
    """One file. ``read`` gives its bytes from an offset on, where this machine can."""

    path: str
    size: int
    sha256: str
    read: Callable[[int], Iterator[bytes]] | None = field(default=None, compare=False)

    @property
    def file(self) -> File:
        """As a relay takes it."""
        return self.path, self.size, self.sha256


@dataclass(frozen=True)
class Row:
    """How far one host is."""

    name: str
    held: int
    total: int
    state: str
    note: str


class Observer(Protocol):
    """Is told what happens."""

    def note(self, text: str) -> None:
        """A step."""

    def moving(self, rows: Sequence[Row]) -> None:
        """How far all hosts are, a few times a second."""


@dataclass(frozen=True)
class Outcome:
    """What came of it: hosts that have all files now, and why others have not. ``moved`` is what they did not have."""

    done: tuple[str, ...]
    failed: dict[str, ShoalError]
    total: int
    moved: Mapping[str, int]
    seconds: float


@dataclass(frozen=True)
class Errand:
    """What is to be where. ``addresses`` are the hosts' on the fabric; ``anew``: trust no remembered checksum."""

    store: str
    pieces: tuple[Piece, ...]
    addresses: Mapping[str, str]
    port: int = PORT
    anew: bool = False

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(piece.size for piece in self.pieces)

    @property
    def here(self) -> bool:
        """Whether this machine can give all of it."""
        return all(piece.read for piece in self.pieces)


def from_file(path: Path) -> Callable[[int], Iterator[bytes]]:
    """A file of this machine."""

    def read(offset: int) -> Iterator[bytes]:
        with path.open("rb") as file:
            file.seek(offset)
            yield from iter(lambda: file.read(FRAME), b"")

    return read


def who() -> str:
    """Who pushes, for others who want to."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def transfer(hosts: Mapping[str, Host], errand: Errand, observer: Observer) -> Outcome:
    """Bring the files to all hosts. One that fails does not keep the others from theirs."""
    began = time.monotonic()
    with Party(hosts) as party:
        return _Transfer(party, errand, observer).run(began)


class _Transfer:
    def __init__(self, party: Party, errand: Errand, observer: Observer) -> None:
        self._party, self._errand, self._observer = party, errand, observer
        self._chain: tuple[str, ...] = ()
        self._asked: dict[str, str] = {}  # host -> whom it was told to take from
        self._sender: _Sender | None = None
        self._lacked: dict[str, int] = {}

    def run(self, began: float) -> Outcome:
        token = secrets.token_hex(32)
        shared = {"root": self._errand.store, "who": who(), "scan": [], "token": token, "anew": self._errand.anew}
        for peer in self._party.peers.values():
            address = self._errand.addresses.get(peer.name, "")
            port = self._errand.port
            listed = [piece.file for piece in self._errand.pieces]
            peer.order(do="open", files=listed, address=address, port=port, **shared)
        try:
            self._until(lambda peer: peer.state != "looks")
            self._begin()
            self._until(self._whole)
        finally:
            if self._sender:
                self._sender.stop()
        peers = self._party.peers.values()
        return Outcome(
            done=tuple(peer.name for peer in peers if peer.error is None),
            failed={peer.name: peer.error for peer in peers if peer.error},
            total=self._errand.total,
            moved=self._lacked,
            seconds=time.monotonic() - began,
        )

    def _until(self, there: Callable[[Peer], bool]) -> None:
        """Hear the hosts until each of them is there, or has failed."""
        while not all(there(peer) for peer in self._party.alive):
            peer, report = self._party.hear()
            if report["told"] == "source":
                raise report["error"]
            if peer is not None:
                self._act(peer, report)
            self._look_for_stalls()
            self._observer.moving([self._row(peer) for peer in self._party.peers.values()])

    def _row(self, peer: Peer) -> Row:
        done = peer.looked if peer.state == "looks" else peer.held
        return Row(peer.name, done, self._errand.total, peer.state, peer.error.what if peer.error else peer.note)

    def _act(self, peer: Peer, report: Report) -> None:
        told = report["told"]
        if peer.error is not None:
            if told in {"failed", "gone"}:
                self._lose(peer, peer.error)
        elif told == "ready" and peer.state == "looks":
            peer.state = "ready"
        elif told == "ready" and self._asked.get(peer.name) == CHAIR:
            self._send_to(peer)
        elif told == "again" and self._sender and self._sender.peer is peer:
            self._sender.todo.put(report["file"])
        elif told == "have" and self._whole(peer):
            peer.state = "whole"

    def _whole(self, peer: Peer) -> bool:
        return len(peer.have) == len(self._errand.pieces)

    def _lack(self, peer: Peer) -> int:
        """Bytes that it still needs."""
        return sum(
            missing(piece.size, peer.parts.get(index, 0), have=index in peer.have)
            for index, piece in enumerate(self._errand.pieces)
        )

    def _begin(self) -> None:
        """All have looked: those that lack something, and have room for it, get it."""
        for peer in self._party.alive:
            lack = self._lacked[peer.name] = self._lack(peer)
            peer.held, peer.moved = self._errand.total - lack, time.monotonic()
            peer.state = "whole" if self._whole(peer) else "waits"
            if lack > peer.free:
                self._party.fail(peer, _no_room(peer, lack))
        self._chain = order({peer.name: peer.held for peer in self._party.alive})
        self._route()

    def _route(self) -> None:
        """Tell each host from whom to take, where that has changed."""
        alive = {peer.name: peer for peer in self._party.alive}
        chain = [name for name in self._chain if name in alive]
        whole = {name for name in chain if self._whole(alive[name])}
        for name, giver in upstreams(chain, whole, chair=self._errand.here).items():
            if giver is None:
                self._party.fail(alive[name], _no_giver(name))
            elif self._asked.get(name) != giver:
                self._asked[name] = giver
                alive[name].moved = time.monotonic()
                alive[name].state = "takes"
                if giver == CHAIR:
                    alive[name].order(do="stand")
                else:
                    place = [self._errand.addresses[giver], alive[giver].port]
                    alive[name].order(**{"do": "fetch", "from": place})

    def _send_to(self, peer: Peer) -> None:
        if self._sender:
            self._sender.stop()
        self._sender = _Sender(peer, self._errand.pieces, self._party.heard)
        self._sender.start()

    def _look_for_stalls(self) -> None:
        """A host that gets nothing, although there is something to get, is given up."""
        now, alive = time.monotonic(), {peer.name: peer for peer in self._party.alive}
        for name, giver in self._asked.items():
            peer, before = alive.get(name), alive.get(giver)
            if peer is None or before is None or peer.state != "takes":
                continue
            if before.held <= peer.held:
                peer.moved = now  # there is nothing to get
            elif now > peer.moved + (STALL if peer.note else SILENCE):
                self._lose(peer, _stalled(peer, giver, self._errand.addresses[giver], before.port))
                return

    def _lose(self, peer: Peer, error: ShoalError) -> None:
        """Go on without this host; who took from it takes from another."""
        self._party.fail(peer, error)
        self._route()


class _Sender(threading.Thread):
    """Sends what one host lacks, from this machine; more than once where a checksum was wrong."""

    def __init__(self, peer: Peer, pieces: Sequence[Piece], heard: Heard) -> None:
        super().__init__(daemon=True, name=f"send to {peer.name}")
        self.peer = peer
        self.todo: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._pieces, self._heard, self._stopped = pieces, heard, False
        self._parts = dict(peer.parts)
        for index in range(len(pieces)):
            if index not in peer.have:
                self.todo.put(index)

    def stop(self) -> None:
        """Send no more."""
        self._stopped = True
        self.todo.put(None)

    def run(self) -> None:
        """Send until told to stop; what goes wrong with the source is told as a report."""
        try:
            while (index := self.todo.get()) is not None and not self._stopped:
                self._send(index, self._pieces[index])
        except ShoalError as error:
            self._heard.put((CHAIR, {"told": "source", "error": error}))
        except OSError as error:
            found = PreconditionFailed("cannot read what is to be pushed", why=str(error))
            self._heard.put((CHAIR, {"told": "source", "error": found}))

    def _send(self, index: int, piece: Piece) -> None:
        assert piece.read is not None  # this machine can give it, or nobody would have asked
        at = min(self._parts.pop(index, 0), piece.size)
        if at == piece.size:
            self.peer.put(index, at, b"")
        for data in piece.read(at) if at < piece.size else ():
            if self._stopped:
                return
            self.peer.put(index, at, data[: piece.size - at])
            at += len(data)
        if at != piece.size:
            raise PreconditionFailed(
                f"{piece.path} was {piece.size:,} bytes, and now gives {at:,}",
                why="somebody changed it, or the download broke off",
                fix="run it again: what has arrived is kept",
            )


def _no_room(peer: Peer, lack: int) -> PreconditionFailed:
    return PreconditionFailed(
        f"{peer.name} has no room: {lack / 1e9:.1f} GB are missing there, {peer.free / 1e9:.1f} GB are free",
        why=f"in {peer.root}",
        fix=f"on {peer.name}: df -h {peer.root}; or set another folder in the cluster file",
    )


def _no_giver(name: str) -> HostUnreachable:
    return HostUnreachable(
        f"{name} did not get everything: nobody who has it is left",
        why="the host that had it was lost, and this machine has it not",
        fix="mend that host, then run it again: it goes on where it stood",
    )


def _stalled(peer: Peer, giver: str, address: str, port: int) -> HostUnreachable:
    return HostUnreachable(
        f"{peer.name} gets nothing from {giver} over {address}, port {port}",
        why=peer.note or f"no byte came for {SILENCE:g} s",
        fix=f"on {peer.name}: ping {address}; and let a firewall pass port {port} between fabric addresses",
    )
