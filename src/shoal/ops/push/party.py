"""The relays on all hosts, as the chair sees them: orders go out, reports come in, whoever is lost is told of."""

import json
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Self

from shoal.errors import HostUnreachable, PreconditionFailed, ShoalError
from shoal.host import relay
from shoal.host.base import Host, Talk

PING = 5.0  # seconds between two words to a relay, which ends after 20 without one
# Reads the program's modules, one JSON object in the first line, and runs them: nothing is written over there.
BOOT = """\
import json, sys, types
for name, source in json.loads(sys.stdin.buffer.readline().decode()):
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
module.main()
"""
MODULES = ("shoal.host.relay_store", "shoal.host.relay")
Report = dict[str, Any]


def program() -> bytes:
    """The relay's modules, as BOOT takes them."""
    folder = files("shoal.host")
    sources = [(name, folder.joinpath(f"{name.rpartition('.')[2]}.py").read_text(encoding="utf-8")) for name in MODULES]
    return json.dumps(sources).encode() + b"\n"


@dataclass
class Peer:
    """One host: what is known of it."""

    name: str
    host: Host
    talk: Talk
    root: str = ""
    port: int = 0
    free: int = 0
    have: set[int] = field(default_factory=set)
    parts: dict[int, int] = field(default_factory=dict)
    held: int = 0  # bytes of the files that are there
    looked: int = 0
    moved: float = 0.0  # when it got something last
    state: str = "looks"
    note: str = ""
    error: ShoalError | None = None
    closer: threading.Thread | None = None  # at work on the end of its relay
    outbox: "queue.SimpleQueue[bytes | None]" = field(default_factory=queue.SimpleQueue)

    def order(self, **words: Any) -> None:
        """Give an order; a host that hangs does not hold anybody up."""
        self.outbox.put(json.dumps(words).encode() + b"\n")

    def put(self, index: int, at: int, data: bytes) -> None:
        """Send a piece of a file, in this thread."""
        words = {"do": "put", "file": index, "at": at, "size": len(data)}
        self.talk.send(json.dumps(words).encode() + b"\n" + data)


class Party:
    """The relays, from start to end; ``with`` makes sure of the end."""

    def __init__(self, hosts: Mapping[str, Host]) -> None:
        self.heard: queue.SimpleQueue[tuple[str, Report | None]] = queue.SimpleQueue()
        self.peers: dict[str, Peer] = {}
        self._hosts = hosts
        self._pinged = time.monotonic()

    def __enter__(self) -> Self:
        modules = program()
        try:
            for name, host in self._hosts.items():
                peer = self.peers[name] = Peer(name, host, host.start(("python3", "-c", BOOT)), moved=time.monotonic())
                peer.outbox.put(modules)
                for work in (self._read, self._write):
                    threading.Thread(target=work, args=(peer,), daemon=True, name=f"relay {name}").start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End all relays, at once; each takes its port and its lock with it."""
        for peer in self.peers.values():
            self._end(peer)
        for peer in self.peers.values():
            if peer.closer:
                peer.closer.join()

    def _read(self, peer: Peer) -> None:
        while (line := peer.talk.line()) is not None:
            _, mark, told = line.partition(relay.MARK)
            if mark:
                self.heard.put((peer.name, json.loads(told)))
        self.heard.put((peer.name, None))

    def _write(self, peer: Peer) -> None:
        while (data := peer.outbox.get()) is not None:
            peer.talk.send(data)

    @property
    def alive(self) -> list[Peer]:
        """Hosts without an error."""
        return [peer for peer in self.peers.values() if peer.error is None]

    def hear(self, patience: float = 1.0) -> tuple[Peer | None, Report]:
        """The next report, with what every report means already taken in; an empty one where nothing came."""
        if time.monotonic() > self._pinged + PING:
            self._pinged = time.monotonic()
            for peer in self.alive:
                peer.order(do="ping")
        try:
            name, report = self.heard.get(timeout=patience)
        except queue.Empty:
            return None, {"told": ""}
        told, found = report or {"told": "gone"}, self.peers.get(name)
        if found is not None and found.error is None:
            _take_in(found, told)
        return found, told

    def fail(self, peer: Peer, error: ShoalError) -> None:
        """Go on without this host, whose relay is ended."""
        peer.error, peer.state = error, "failed"
        self._end(peer)

    def _end(self, peer: Peer) -> None:
        if peer.closer is None:
            peer.outbox.put(None)
            peer.closer = threading.Thread(target=peer.talk.close, daemon=True)
            peer.closer.start()


def _take_in(peer: Peer, report: Report) -> None:
    told = report["told"]
    if told == "at":
        if report["bytes"] != peer.held:
            peer.note = ""
        peer.held, peer.looked, peer.moved = report["bytes"], report["looked"], time.monotonic()
    elif told == "ready":
        peer.have = set(report["have"])
        peer.parts = {int(index): size for index, size in report["parts"].items()}
        peer.port, peer.free = report.get("port", peer.port), report.get("free", peer.free)
        peer.root = report.get("root", peer.root)
    elif told == "have":
        peer.have.add(report["file"])
    elif told == "again":
        peer.note = "a checksum was wrong: taken anew"
    elif told == "cut":
        peer.note = f"from {report['upstream'][0]}, port {report['upstream'][1]}: {report['why']}"
    elif told == "failed":
        peer.error, peer.state = _failed(peer, report), "failed"
    elif told == "gone":
        peer.error, peer.state = _gone(peer), "failed"


def _failed(peer: Peer, report: Report) -> ShoalError:
    what, root = str(report["what"]), peer.root or "its store"
    if report.get("errno"):
        fix = f"on {peer.name}: df -h {root}; ls -ld {root}   # then run it again: it goes on where it stood"
        return PreconditionFailed(f"{peer.name} cannot write to {root}", why=what, fix=fix)
    return PreconditionFailed(f"{peer.name}: {what}", fix=str(report.get("fix", "")))


def _gone(peer: Peer) -> ShoalError:
    said, code = peer.talk.ended()
    if "python3" in said and ("not found" in said or code == 127):
        return PreconditionFailed(
            f"{peer.name} has no python3", why=said.strip(), fix="sudo apt install python3   # there"
        )
    if code == 1 and not said.strip():
        return HostUnreachable(f"{peer.name} heard nothing from here for {relay.PATIENCE:g} s, and ended its relay")
    return peer.talk.blame()
