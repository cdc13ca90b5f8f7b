"""What lies on hosts already, with the checksums that they take of it themselves."""

from collections.abc import Mapping
from dataclasses import dataclass

from shoal.errors import ShoalError
from shoal.host.base import Host
from shoal.host.relay_store import File
from shoal.ops.push.party import Party, Peer
from shoal.ops.push.transfer import Observer, Row, who


@dataclass(frozen=True)
class Place:
    """A host's files below one folder; ``root`` is the store's whole path there."""

    name: str
    root: str
    files: tuple[File, ...]


def scanned(hosts: Mapping[str, Host], store: str, target: str, observer: Observer) -> list[Place]:
    """Each host that could be asked. Where none could, the first one's error is raised."""
    found: dict[str, Place] = {}
    with Party(hosts) as party:
        for peer in party.peers.values():
            peer.order(do="open", root=store, who=who(), scan=[target])
        while lacking := [peer for peer in party.alive if peer.name not in found]:
            told, report = party.hear()
            if told and report["told"] == "found":
                files = tuple((str(path), int(size), str(digest)) for path, size, digest in report["files"])
                found[told.name] = Place(told.name, report["root"], files)
            observer.moving([_row(peer) for peer in lacking])
        lost: list[ShoalError] = [peer.error for peer in party.peers.values() if peer.error]
    if not found and lost:
        raise lost[0]
    return [found[name] for name in hosts if name in found]


def _row(peer: Peer) -> Row:
    return Row(peer.name, peer.looked, 0, peer.state, peer.note)
