"""Logs opened and read, whatever they are: files, folders, gzip, standard input. In pieces: a log may be gigabytes."""

import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from shoal.errors import UsageError
from shoal.explain.story import Story
from shoal.explain.verdict import Explanation, explain

PIECE = 1 << 20
GZIP = b"\x1f\x8b"
MOST_FILES = 2000


def explain_paths(paths: Sequence[str]) -> Explanation:
    """The verdict over these files, folders and ``-``, taken as the logs of one incident.

    Raises:
        UsageError: one of them is not there or cannot be read.
    """
    stories = []
    for name in files(paths):
        story = Story(name)
        story.read(pieces(name))
        stories.append(story)
    return explain(stories)


def files(paths: Sequence[str]) -> list[str]:
    """Every file meant: folders give all files below them that are not hidden, in the order of their names.

    Raises:
        UsageError: there is no such file, or more than anyone means.
    """
    names: list[str] = []
    for path in map(Path, paths):
        if str(path) == "-" or path.is_file() or path.is_fifo():
            names.append(str(path))
        elif path.is_dir():
            names += sorted(str(file) for file in path.rglob("*") if file.is_file() and _is_log(file.relative_to(path)))
        else:
            raise UsageError(f"no such file: {path}", fix="shoal explain FILE")
        if len(names) > MOST_FILES:
            raise UsageError(
                f"{len(names)} files: more than the {MOST_FILES} that one incident may have",
                fix="name the logs of one run: shoal explain FILE FILE ...",
            )
    return list(dict.fromkeys(names))


def _is_log(below: Path) -> bool:
    """Hidden files are a program's own notes."""
    return not any(part.startswith(".") for part in below.parts)


def pieces(name: str) -> Iterator[bytes]:
    """The bytes of a file or of standard input, unpacked where they are gzip. A damaged one is read as far as it goes.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        if name == "-":
            yield from _read(sys.stdin.buffer)
        else:
            with Path(name).open("rb") as file:
                yield from _read(file)
    except OSError as error:
        raise UsageError(f"cannot read {name}", why=str(error)) from error


def _read(file: BinaryIO) -> Iterator[bytes]:
    first = file.read(PIECE)
    if not first.startswith(GZIP):
        while first:
            yield first
            first = file.read(PIECE)
        return
    yield from _unpack(first, file)


def _unpack(data: bytes, file: BinaryIO) -> Iterator[bytes]:
    """The content of a gzip stream of any number of members; it ends where the stream is damaged."""
    unzip = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    while data:
        try:
            piece = unzip.decompress(data, PIECE)
        except zlib.error:
            return
        if piece:
            yield piece
        data = unzip.unconsumed_tail
        if unzip.eof:
            data = unzip.unused_data.lstrip(b"\x00")
            unzip = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        data = data or file.read(PIECE)
