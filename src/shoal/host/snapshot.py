"""A machine as it was read once: files, links and command replies. Facts are parsed from this and from nothing else.

A live machine, a capture in a folder and a capture in a tar all become a :class:`Snapshot`, so the doctor judges them
alike. "Not there" and "not looked at" are different answers: the second is None everywhere, and never "broken".
"""

import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property

MAX_LINKS = 40
Patterns = list[list[str]]


@dataclass(frozen=True)
class Reply:
    """What a command answered: exit code, standard output, standard error. Code 127: there is no such program."""

    code: int
    out: str = ""
    err: str = ""


@dataclass(frozen=True)
class Snapshot:
    """What was read of one machine.

    ``files`` hold text by absolute path, ``links`` the targets of symbolic links, ``errors`` the errno names of files
    that are there and could not be read (``EINVAL``, ``EACCES``), ``replies`` command replies by command line as
    :func:`shlex.join` writes it. Below the paths in ``looked``, what is in none of them does not exist; elsewhere it
    is not known. A pattern in ``looked`` stands for the paths that it matches and for those on the way there.
    ``taken`` is the machine's own clock, ``asked`` the reader's at that moment, in seconds since the epoch.
    """

    name: str
    files: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    replies: Mapping[str, Reply] = field(default_factory=dict)
    looked: tuple[str, ...] = ()
    taken: float | None = None
    asked: float | None = None

    def read(self, path: str) -> str | None:
        """Text of a file, links followed; None where it is not there, unreadable or was not looked at."""
        return self.files.get(self.resolve(path))

    def word(self, path: str) -> str | None:
        """A one-line file without its line end; None as for :meth:`read`."""
        text = self.read(path)
        return None if text is None else text.strip()

    def error(self, path: str) -> str | None:
        """The errno name of a file that is there and could not be read."""
        return self.errors.get(self.resolve(path))

    def list(self, path: str) -> tuple[str, ...] | None:
        """Sorted names in a folder; empty where there is no such folder, None where nobody looked."""
        names = self._tree.get(self.resolve(path))
        if names:
            return tuple(sorted(names))
        return () if self.was_looked_at(path) else None

    def exists(self, path: str) -> bool | None:
        """Whether a file, link or folder is there; None where nobody looked."""
        where = self.resolve(path)
        if where in self.files or where in self.errors or where in self._tree or path in self.links:
            return True
        return False if self.was_looked_at(path) else None

    def target(self, path: str) -> str | None:
        """The last name in a link's target (a PCI address, a driver); None where it is no link."""
        target = self.links.get(posixpath.join(self.resolve(posixpath.dirname(path)), posixpath.basename(path)))
        return None if target is None else posixpath.basename(target.rstrip("/"))

    def was_looked_at(self, path: str) -> bool:
        """Whether what is missing at ``path`` does not exist; not so below a folder that could not be read."""
        for way in (path, self.resolve(path)):
            if self._looked_for(way):
                return not any(folder in self.errors for folder in _above(way))
        return False

    def _looked_for(self, path: str) -> bool:
        if any(path == root or path.startswith(root + "/") for root in self._roots):
            return True
        parts = path.split("/")
        patterns = self._patterns.get(tuple(parts[:3]), ())
        return any(len(parts) <= len(pattern) and all(map(fnmatchcase, parts[3:], pattern[3:])) for pattern in patterns)

    def reply(self, *argv: str) -> Reply | None:
        """The reply to exactly this command; None where it was not asked."""
        return self.replies.get(shlex.join(argv))

    def replies_of(self, program: str, *words: str) -> Iterator[tuple[Sequence[str], Reply]]:
        """Replies to commands of that program that hold all ``words``, in any order, wherever the program lies."""
        for argv, reply in self._commands:
            if posixpath.basename(argv[0]) == program and set(words) <= set(argv[1:]):
                yield argv, reply

    def resolve(self, path: str) -> str:
        """The path with every symbolic link on the way followed; a circle of links stays as it is."""
        folder, _, name = path.rpartition("/")
        at = self._folders.get(folder)
        if at is None:
            at = self._folders[folder] = self._walk("/", folder) or folder
        return self._walk(at, name) or path

    def _walk(self, at: str, path: str) -> str | None:
        """Where ``path`` leads from the folder ``at``; None for a circle of links."""
        parts, jumps = [part for part in reversed(path.split("/")) if part], 0
        while parts:
            step = posixpath.normpath(posixpath.join(at, parts.pop()))
            target = self.links.get(step)
            if target is None:
                at = step
                continue
            jumps += 1
            if jumps > MAX_LINKS:
                return None
            parts += [part for part in reversed(target.split("/")) if part]
            at = "/" if target.startswith("/") else at
        return at

    @cached_property
    def _folders(self) -> dict[str, str]:
        """Folder -> where it leads, as far as somebody asked: thousands of files lie in the same few."""
        return {}

    @cached_property
    def _roots(self) -> tuple[str, ...]:
        return tuple(root.rstrip("/") for root in self.looked if "*" not in root)

    @cached_property
    def _patterns(self) -> dict[tuple[str, ...], Patterns]:
        """Patterns by their first two names, which hold no ``*``."""
        found: dict[tuple[str, ...], Patterns] = {}
        for parts in (pattern.split("/") for pattern in self.looked if "*" in pattern):
            found.setdefault(tuple(parts[:3]), []).append(parts)
        return found

    @cached_property
    def _commands(self) -> tuple[tuple[Sequence[str], Reply], ...]:
        split = ((bare(_split(line)), reply) for line, reply in self.replies.items())
        return tuple((argv, reply) for argv, reply in split if argv)

    @cached_property
    def _tree(self) -> dict[str, set[str]]:
        """Folder -> names in it, of all that was read."""
        tree: dict[str, set[str]] = {}
        for path in (*self.files, *self.links, *self.errors):
            child = path
            while child != "/":
                parent = posixpath.dirname(child) or "/"
                names = tree.setdefault(parent, set())
                if posixpath.basename(child) in names:
                    break
                names.add(posixpath.basename(child))
                child = parent
        return tree


def _above(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def bare(argv: Sequence[str]) -> Sequence[str]:
    """A command without what stands before it: ``sudo``, ``VAR=value``, ``env``, ``sh -c``."""
    words = list(argv)
    while words and ((words[0] in {"sudo", "env"} and len(words) > 1) or re.match(r"\w+=", words[0])):
        words.pop(0)
    if len(words) == 3 and posixpath.basename(words[0]) in {"sh", "bash"} and words[1] in {"-c", "-lc"}:
        return bare(_split(words[2]))
    return words


def _split(line: str) -> Sequence[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()
