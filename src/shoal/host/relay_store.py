"""The files that a relay holds: what is there, what is on its way, and whether it is what is meant.

Sent to other machines with relay.py: Python 3.6 alone. A file has its name only when its sha256 is right; until then
it is a part, named by path and digest of what it is to be, so that whoever comes next goes on where this one stood.
"""

import errno
import fcntl
import hashlib
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

PIECE = 1 << 20
READERS = min(8, os.cpu_count() or 1)  # files whose checksum is taken at once, a core each
OLD = 7 * 86400.0  # seconds after which a part that nobody came back for is removed
PRIVATE = ".shoal"  # folder in the store: lock, sums and parts
TRIES = 2  # times a file is taken before its checksum is believed to be wrong
File = Tuple[str, int, str]  # path below the store, size, sha256


class Trouble(Exception):
    """What cannot be done here, and what mends it."""

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.what, self.fix = what, fix


class Sums:
    """sha256 of files, remembered by size, times and inode: what nobody touched is not read again."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known: Dict[str, List[Any]] = {}
        try:
            with open(path, encoding="utf-8") as file:
                known = json.load(file)
            self._known = known if isinstance(known, dict) else {}
        except (OSError, ValueError):
            pass  # it is made anew

    def of(self, path: str, anew: bool = False, tell: Callable[[int], None] = lambda _: None) -> str:
        """The digest of a file; ``tell`` hears how many bytes were looked at meanwhile."""
        before = _mark(path)
        known = self._known.get(path)
        if known is not None and known[:-1] == before and not anew:
            tell(before[0])
            return str(known[-1])
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            for piece in iter(lambda: file.read(PIECE), b""):
                digest.update(piece)
                tell(len(piece))
        if _mark(path) == before:
            self.note(path, digest.hexdigest())
        return digest.hexdigest()

    def note(self, path: str, digest: str) -> None:
        """Remember the digest of a file as it is now."""
        with self._lock:
            self._known[path] = [*_mark(path), digest]

    def save(self) -> None:
        """Keep what is known, but for files that are gone."""
        with self._lock:
            known = {path: row for path, row in self._known.items() if os.path.exists(path)}
            part = "%s.%d" % (self._path, os.getpid())
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            with open(part, "w", encoding="utf-8") as file:
                json.dump(known, file)
            os.replace(part, self._path)


def _mark(path: str) -> List[int]:
    seen = os.stat(path)
    return [seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino]


def scan(root: str, folders: List[str], sums: Sums, tell: Callable[[int], None] = lambda _: None) -> List[File]:
    """The files below some folders of ``root``, links followed; names that begin with a dot are nobody's weights."""
    paths = sorted(path for folder in folders for path in _walk(os.path.join(root, folder)))
    with ThreadPoolExecutor(READERS) as readers:
        digests = list(readers.map(lambda path: sums.of(path, tell=tell), paths))
    return [(os.path.relpath(path, root), os.path.getsize(path), digest) for path, digest in zip(paths, digests)]


def _walk(top: str) -> Iterator[str]:
    if os.path.isfile(top):
        yield top
    for folder, folders, names in os.walk(top, followlinks=True):  # a file of the hub's cache is a link
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(folder, name) for name in names if not name.startswith("."))


class Item:
    """One file: how much of it is here, and whether it is the one that is meant."""

    def __init__(self, index: int, root: str, path: str, size: int, sha256: str) -> None:
        if os.path.isabs(path) or ".." in path.split("/") or not sha256.isalnum():
            raise Trouble("%r is no path below the store" % path)
        self.index, self.path, self.size, self.sha256 = index, path, size, sha256
        self.final = os.path.join(root, path)
        named = hashlib.sha256((path + sha256).encode()).hexdigest()
        self.part = os.path.join(root, PRIVATE, "parts", named)
        self.have, self.got, self.round, self.tries = False, 0, 0, 0
        self.file: Optional[Any] = None
        self.checker: Optional["Checker"] = None

    def held(self) -> int:
        """Bytes of it that are here."""
        return self.size if self.have else self.got


class Checker(threading.Thread):
    """Takes the digest of a part while it grows, from its first byte on, beside the one who writes it."""

    def __init__(self, item: Item, changed: threading.Condition, tell: Callable[[int], None]) -> None:
        super().__init__(daemon=True)
        self._item, self._changed, self._turn, self._tell = item, changed, item.round, tell
        self._file = open(item.part, "rb")  # now: on a full disk the part is gone before the thread begins
        self.digest = hashlib.sha256()

    def run(self) -> None:
        """Follow to the end, or until the part is thrown away."""
        item = self._item
        with self._file as file:
            while file.tell() < item.size and item.round == self._turn:
                with self._changed:
                    self._changed.wait_for(lambda: item.got > file.tell() or item.round != self._turn)
                piece = file.read(min(PIECE, item.got - file.tell()))
                self.digest.update(piece)
                self._tell(len(piece))


class Store:
    """A folder of files that are to be there. ``changed`` is told of every byte, ``tell`` of every file."""

    def __init__(self, root: str, who: str, tell: Callable[..., None]) -> None:
        self.tell = tell
        self.root = os.path.expanduser(root)
        self.parts = os.path.join(self.root, PRIVATE, "parts")
        os.makedirs(self.parts, exist_ok=True)
        self._lock = _locked(os.path.join(self.root, PRIVATE, "lock"), who)
        self.sums = Sums(os.path.join(self.root, PRIVATE, "sums.json"))
        self.items: List[Item] = []
        self.changed = threading.Condition()
        self.looked = 0

    def look(self, files: List[File], anew: bool) -> None:
        """See what is there of these files."""
        self.items = [Item(index, self.root, *file) for index, file in enumerate(files)]
        self._forget_old()
        with ThreadPoolExecutor(READERS) as readers:
            list(readers.map(lambda item: self._look(item, anew), self.items))
        self.sums.save()

    def close(self) -> None:
        """Let go of the lock and of every part; whoever follows one stops."""
        with self.changed:
            for item in self.items:
                item.round += 1
                if item.file is not None:
                    item.file.close()
            self.changed.notify_all()
        self._lock.close()

    def scan(self, folders: List[str]) -> List[File]:
        """The files that are in some folders."""
        found = scan(self.root, folders, self.sums, self._count)
        self.sums.save()
        return found

    def _count(self, size: int) -> None:
        with self.changed:
            self.looked += size

    def _forget_old(self) -> None:
        meant = {item.part for item in self.items}
        for name in os.listdir(self.parts):
            path = os.path.join(self.parts, name)
            if path not in meant and os.path.getmtime(path) < time.time() - OLD:
                os.unlink(path)

    def _look(self, item: Item, anew: bool) -> None:
        if os.path.isfile(item.final) and os.path.getsize(item.final) == item.size:
            item.have = self.sums.of(item.final, anew, self._count) == item.sha256
        if not item.have and os.path.isfile(item.part):
            item.got = min(os.path.getsize(item.part), item.size)

    def begin(self, item: Item) -> int:
        """Open its part; where to go on."""
        if item.file is None:
            item.file = open(item.part, "r+b" if item.got else "wb", buffering=0)
            item.file.truncate(item.got)
            item.file.seek(item.got)
            item.checker = Checker(item, self.changed, self._count)
            item.checker.start()
        return item.got

    def put(self, index: int, at: int, data: bytes) -> None:
        """Take a piece that came with an order; one that is out of step belongs to a try that was given up."""
        item = self.items[index]
        if not item.have and at == self.begin(item):
            self.take(item, data)

    def take(self, item: Item, data: Any) -> None:
        """Add to a part. At its end it gets its name, or is thrown away."""
        self.begin(item)
        assert item.file is not None
        left = memoryview(data)
        try:
            while left:
                left = left[item.file.write(left) :]
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                os.unlink(item.part)  # nobody is helped by a disk that stays full
            raise
        with self.changed:
            item.got += len(data)
            self.changed.notify_all()
        if item.got == item.size:
            self._finish(item)

    def _finish(self, item: Item) -> None:
        assert item.file is not None
        assert item.checker is not None
        item.checker.join()
        right = item.checker.digest.hexdigest() == item.sha256
        if right:
            os.fsync(item.file.fileno())
        item.file.close()
        item.file = None
        (self._name if right else self._throw_away)(item)

    def _name(self, item: Item) -> None:
        os.makedirs(os.path.dirname(item.final), exist_ok=True)
        with self.changed:
            os.replace(item.part, item.final)
            item.have = True
            self.changed.notify_all()
        self.sums.note(item.final, item.sha256)
        self.sums.save()
        self.tell("have", file=item.index)

    def _throw_away(self, item: Item) -> None:
        with self.changed:
            os.unlink(item.part)
            item.got, item.round, item.tries = 0, item.round + 1, item.tries + 1
            self.changed.notify_all()
        if item.tries >= TRIES:
            raise Trouble("%s came %d times with a wrong checksum" % (item.path, TRIES))
        self.tell("again", file=item.index)


def _locked(path: str, who: str) -> Any:
    """The store's lock, which goes with this process."""
    lock = open(path, "a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        why = "another push is at work there: %s" % lock.read().strip()
        lock.close()
        raise Trouble(why, "wait for it, or end it") from None
    lock.truncate(0)
    lock.write("%s, since %s" % (who, time.strftime("%H:%M:%S")))
    lock.flush()
    return lock
