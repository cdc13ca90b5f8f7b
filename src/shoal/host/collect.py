"""Files of a machine for a support archive. This file is sent to others' ``python3 -``: standard library of 3.6.

In goes a request, out comes one JSON object, compressed, in one line that begins with MARK. Files that hold secrets and
nothing else come apart from the others: so that what is in them can be taken out of everything else.
"""

import base64
import fnmatch
import json
import os
import stat
import subprocess
import sys
import zlib
from typing import Any, Dict, Iterator, List, Tuple

MARK = "shoal-collect:"
# Folders that hold nothing to read: caches, weights, sockets.
PASSED_OVER = {"cache", "models", "run", "encodings", "__pycache__", "hub"}


def collect(request: Dict[str, Any]) -> Dict[str, Any]:
    """The request's folders and what its commands print. ``most`` bytes of each file, its end, and ``room`` in all."""
    files: Dict[str, str] = {}
    left: Dict[str, str] = {}
    secrets: List[str] = []
    room = request["room"]
    for name, folder in sorted(request["folders"].items()):
        for path, where in found(name, os.path.expanduser(folder)):
            secret = any(fnmatch.fnmatch(os.path.basename(path), pattern) for pattern in request["secrets"])
            # A secret takes no room, and has to be known to be taken out of the rest.
            data, why = end_of(where, request["most"] if secret else min(request["most"], room))
            if secret:
                secrets.append(data.decode("utf-8", "replace"))
                why = "it is a secret"
            elif not why and b"\0" in data:
                why = "it is no text"
            if why:
                left[path] = why
            else:
                room -= len(data)
                files[path] = base64.b64encode(data).decode()
    said = {name: reply(argv, request["most"]) for name, argv in sorted(request["commands"].items())}
    files.update({name: base64.b64encode(data).decode() for name, data in said.items()})
    return {"files": files, "left": left, "secrets": secrets}


def found(name: str, folder: str) -> Iterator[Tuple[str, str]]:
    """The regular files below a folder: what they are to be called, and where they lie. Links are not followed."""
    for place, folders, names in os.walk(os.path.realpath(folder)):
        folders[:] = sorted(item for item in folders if item not in PASSED_OVER)
        for item in sorted(names):
            where = os.path.join(place, item)
            below = os.path.relpath(where, os.path.realpath(folder))
            try:
                regular = stat.S_ISREG(os.lstat(where).st_mode)
            except OSError:
                continue  # it went meanwhile: a cluster that runs writes files beside others, and renames them
            if regular and not item.endswith(".pyz"):
                yield (name + "/" + below).lstrip("/"), where


def end_of(path: str, most: int) -> Tuple[bytes, str]:
    """The end of a file, or why there is none."""
    if most <= 0:
        return b"", "there was no room for more"
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - most))
            return file.read(most), ""
    except OSError as error:
        return b"", os.strerror(error.errno or 0)


def reply(argv: List[str], most: int) -> bytes:
    """The end of what a command prints, errors among it."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20, check=False
        )
        return done.stdout[-most:]
    except (OSError, subprocess.TimeoutExpired) as error:
        return ("%s: %s\n" % (argv[0], error)).encode()


def answer(text: str) -> None:
    """Carry out a request that is JSON, and print what it brings."""
    told = json.dumps(collect(json.loads(text))).encode()
    sys.stdout.write(MARK + base64.b64encode(zlib.compress(told)).decode() + "\n")
