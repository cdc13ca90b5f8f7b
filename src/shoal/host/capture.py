"""A machine kept in a file: a tar of its files and its commands' replies, written once and judged as if live.

A capture made by hand may be partial: ``fs/`` with files under their absolute paths, ``commands.json`` with replies by
command line. Nothing of a capture is ever unpacked: a hostile one has nowhere to write to.
"""

import gzip
import io
import json
import os
import stat
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from shoal.errors import ConfigError
from shoal.host.snapshot import Reply, Snapshot

FS, COMMANDS, META = "fs", "commands.json", "meta.json"
FORMAT = 1
MAX_FILE = 4 << 20
MAX_TOTAL = 512 << 20
MAX_ENTRIES = 300_000
MAX_DEPTH = 60
TARS = (".tar", ".tar.gz", ".tgz")
FIX = "shoal capture -o FILE.tar.gz   # on that machine makes one"


@dataclass(frozen=True)
class Entry:
    """One thing in a capture: a file with its text, a link with its target, an empty folder, or something else."""

    path: str
    kind: str  # file, link, folder, other
    text: str = ""


def pack(taken: Snapshot, version: str) -> bytes:
    """A snapshot as a tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        meta = {
            "format": FORMAT,
            "shoal": version,
            "name": taken.name,
            "taken": taken.taken,
            "asked": taken.asked,
            "looked": list(taken.looked),
            "errors": dict(taken.errors),
        }
        replies = {line: {"rc": one.code, "stdout": one.out, "stderr": one.err} for line, one in taken.replies.items()}
        for name, value in ((META, meta), (COMMANDS, replies)):
            _add(tar, name, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False), taken.taken)
        for path, text in sorted(taken.files.items()):
            _add(tar, FS + path, text, taken.taken)
        for path, target in sorted(taken.links.items()):
            info = _info(FS + path, taken.taken)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return out.getvalue()


def _info(name: str, taken: float | None) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mtime, info.mode = int(taken or 0), 0o600
    return info


def _add(tar: tarfile.TarFile, name: str, text: str, taken: float | None) -> None:
    data = text.encode("utf-8", "replace")
    info = _info(name, taken)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def compressed(data: bytes, path: Path) -> bytes:
    """What is to be written to a file of that name."""
    return gzip.compress(data, mtime=0) if path.name.endswith((".gz", ".tgz")) else data


def load(path: Path) -> tuple[Snapshot, ...]:
    """All captures in a file or a folder, in the order of their names.

    Raises:
        ConfigError: there is none, or what is there is no capture.
    """
    try:
        found = tuple(_of_folder(path) if path.is_dir() else _of_tar(path) if _readable(path) else ())
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such file or folder", fix=FIX) from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read", why=error.strerror or str(error)) from error
    if not found:
        why = f"expected {FS}/ or {COMMANDS} in it, or folders and tars that have them"
        raise ConfigError(f"{path} is no capture", why=why, fix=FIX)
    return found


def _readable(path: Path) -> bool:
    """Whether it is a regular file: a pipe would be waited for."""
    return stat.S_ISREG(path.stat().st_mode)


def _of_folder(path: Path) -> Iterator[Snapshot]:
    """The capture that a folder is, or those that are in it."""
    if _is_capture(path):
        yield _made(path.absolute().name, _counted(_walk(path, ""), path), str(path))
        return
    for child in sorted(path.iterdir()):
        if child.is_dir() and _is_capture(child):
            yield _made(child.name, _counted(_walk(child, ""), child), str(child))
        elif child.is_file() and child.name.endswith(TARS):
            yield from _of_tar(child)


def _is_capture(path: Path) -> bool:
    return (path / FS).is_dir() or (path / COMMANDS).is_file()


def _counted(entries: Iterable[Entry], path: Path) -> Iterator[Entry]:
    """The entries, as long as they are as many and as big as a machine's."""
    left = MAX_TOTAL
    for number, entry in enumerate(entries):
        left -= len(entry.text)
        if number > MAX_ENTRIES or left < 0:
            raise ConfigError(f"{path} is no capture", why="it holds more than a machine has to tell", fix=FIX)
        yield entry


def _walk(root: Path, below: str) -> Iterator[Entry]:
    """What lies in a folder; links are read and not followed, and what lies very deep is no machine's."""
    if below.count("/") > MAX_DEPTH:
        return
    for child in sorted(os.scandir(root / below), key=lambda entry: entry.name):
        path = f"{below}/{child.name}".lstrip("/")
        if child.is_symlink():
            yield Entry(_clean(path), "link", _clean(os.readlink(child.path)))  # noqa: PTH115 (as it is, not as a path)
        elif child.is_dir(follow_symlinks=False):
            inside = list(_walk(root, path))
            yield from inside or [Entry(_clean(path), "folder")]
        elif stat.S_ISREG(child.stat(follow_symlinks=False).st_mode):
            with Path(child.path).open("rb") as file:
                yield Entry(_clean(path), "file", _text(file.read(MAX_FILE)))
        else:
            yield Entry(_clean(path), "other")


def _clean(name: str) -> str:
    """A name that can be printed."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


class _Limited(io.RawIOBase):
    """A stream that refuses to go on for ever: a small file may unpack to anything."""

    def __init__(self, inner: BinaryIO, most: int) -> None:
        self.inner, self.left = inner, most

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self.inner.read(size if 0 <= size <= self.left else self.left + 1)
        self.left -= len(data)
        if self.left < 0:
            raise tarfile.ReadError(f"it holds more than {MAX_TOTAL >> 20} MiB")
        return data


def _of_tar(path: Path) -> Iterator[Snapshot]:
    """The captures in a tar: one at its top, or one in each of its folders."""
    try:
        with path.open("rb") as raw:
            entries = tuple(_members(raw))
    except (tarfile.TarError, EOFError, ValueError, OverflowError, zlib.error, gzip.BadGzipFile) as error:
        raise ConfigError(f"{path} is no capture", why=f"it cannot be read as a tar: {error}", fix=FIX) from error
    tops = dict.fromkeys(top for top in (_top(entry.path) for entry in entries) if top is not None)
    for top in tops:
        inside = (
            Entry(item.path.removeprefix(top), item.kind, item.text) for item in entries if _top(item.path) == top
        )
        name = top.rstrip("/").rpartition("/")[2] or path.name.partition(".tar")[0].removesuffix(".tgz")
        yield _made(name, inside, str(path))


def _members(raw: BinaryIO) -> Iterator[Entry]:
    """What is in a tar, read from front to end and never unpacked."""
    packed = raw.read(2) == b"\x1f\x8b"
    raw.seek(0)
    stream: Any = gzip.GzipFile(fileobj=raw) if packed else raw
    limited: Any = _Limited(stream, MAX_TOTAL)
    with tarfile.open(fileobj=limited, mode="r|") as tar:
        for number, member in enumerate(tar):
            name = _clean(member.name).removeprefix("./")
            if number > MAX_ENTRIES:
                raise tarfile.ReadError(f"it holds more than {MAX_ENTRIES} entries")
            if name.startswith("/") or ".." in name.split("/"):
                raise tarfile.ReadError(f"it names {name!r}, which is outside of it")
            yield _entry(tar, member, name)


def _entry(tar: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> Entry:
    if member.issym():
        return Entry(name, "link", _clean(member.linkname))
    if member.isdir():
        return Entry(name, "folder")
    file = tar.extractfile(member) if member.isreg() else None
    return Entry(name, "file", _text(file.read(MAX_FILE))) if file else Entry(name, "other")


def _top(path: str) -> str | None:
    """What stands before ``fs/`` or ``commands.json``; None for what belongs to no capture."""
    parts = path.split("/")
    if parts[-1] in {COMMANDS, META} and FS not in parts:
        return "".join(f"{part}/" for part in parts[:-1])
    return "".join(f"{part}/" for part in parts[: parts.index(FS)]) if FS in parts else None


def _made(name: str, entries: Iterable[Entry], where: str) -> Snapshot:
    """A snapshot of a capture's entries. An empty folder says that there was nothing in it."""
    files: dict[str, str] = {}
    links: dict[str, str] = {}
    folders: set[str] = set()
    documents = {COMMANDS: "{}", META: "{}"}
    for entry in entries:
        path = entry.path.removeprefix(FS).rstrip("/")
        if entry.path in documents:
            documents[entry.path] = entry.text
        elif not entry.path.startswith(f"{FS}/") or not path:
            continue
        elif entry.kind == "link":
            links[path] = entry.text
        elif entry.kind == "folder":
            folders.add(path)
        else:
            files[path] = entry.text
    meta = _document(documents[META], f"{where}: {META}")
    used = {parent for path in (*files, *links) for parent in _parents(path)}
    replies = _replies(_document(documents[COMMANDS], f"{where}: {COMMANDS}"), where)
    return Snapshot(
        str(meta.get("name") or name),
        _printed(replies) | files,
        links,
        _words(meta.get("errors")),
        replies,
        (*(str(root) for root in _list(meta.get("looked"))), *sorted(folders - used)),
        _number(meta.get("taken")),
        _number(meta.get("asked")),
    )


def _printed(replies: Mapping[str, Reply]) -> dict[str, str]:
    """Files that ``cat`` printed one by one."""
    lines = ((line.split(), reply) for line, reply in replies.items() if reply.code == 0)
    return {
        words[1]: reply.out
        for words, reply in lines
        if len(words) == 2 and words[0] == "cat" and words[1].startswith("/")
    }


def _parents(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _document(text: str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{what} is no JSON", why=str(error)) from error
    if not isinstance(value, dict):
        raise ConfigError(f"{what} holds no JSON object", why=f"it begins with {text.strip()[:20]!r}")
    return value


def _replies(told: Mapping[str, Any], where: str) -> dict[str, Reply]:
    """``{line: {rc, stdout, stderr}}``; a string stands for what a command printed."""
    found = {}
    for line, value in told.items():
        if isinstance(value, str):
            found[line] = Reply(0, value)
        elif isinstance(value, dict) and isinstance(value.get("rc", 0), int):
            found[line] = Reply(int(value.get("rc", 0)), str(value.get("stdout") or ""), str(value.get("stderr") or ""))
        else:
            fix = '{"uname -r": {"rc": 0, "stdout": "6.8.0\\n", "stderr": ""}}'
            raise ConfigError(
                f"{where}: {COMMANDS}: {line!r} holds no reply", why="expected rc, stdout and stderr", fix=fix
            )
    return found


def _words(value: Any) -> dict[str, str]:
    return {str(key): str(word) for key, word in value.items()} if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
