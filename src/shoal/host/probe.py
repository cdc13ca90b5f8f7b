"""Reads a machine in one trip. This file is sent to another machine's ``python3 -``: standard library of 3.6 only.

In goes a request (what :func:`shoal.host.gather.request` makes), out comes one JSON object, packed into one line that
begins with MARK: a login shell may print what it likes before it.
"""

import base64
import errno
import fnmatch
import glob
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import zlib
from typing import Any, Callable, Dict, Iterator, List, Optional, Set, Tuple

MARK = "shoal-probe:"
MAX_FILE = 1 << 20  # bytes; the kernel's files are small
MAX_REPLY = 4 << 20
MAX_NAMES = 20000  # in one folder
MAX_EACH = 64
MAX_HOPS = 40
WORKERS = 8
SBIN = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin:/usr/local/bin"
MASK = "********"
DISTRIBUTION = re.compile(r"([A-Za-z0-9][\w.]*)-(\d[\w.+!]*)\.(?:dist|egg)-info$")
Reply = Tuple[int, str, str]


class Files:
    """Files by pattern. Links on the way are kept, so that a path means here what it means there."""

    def __init__(self) -> None:
        self.files: Dict[str, str] = {}
        self.links: Dict[str, str] = {}
        self.errors: Dict[str, str] = {}
        self.at = ""
        self._names: Dict[str, List[str]] = {}
        self._targets: Dict[str, Optional[str]] = {}
        self._read: Set[str] = set()

    def glob(self, pattern: str, visit: Callable[[str], None]) -> None:
        """Visit each path that matches; ``*`` matches names in one folder."""
        self._walk("/", [part for part in os.path.expanduser(pattern).split("/") if part], visit)

    def matched(self, pattern: str) -> List[str]:
        """What the one ``*`` of a pattern matched, for each path that exists."""
        before, _, after = pattern.partition("*")
        found: List[str] = []
        for name in self._list(self._real(before)):
            there: List[str] = []
            self.glob(before + name + after, there.append)
            if there:
                found.append(name)
        return found

    def _real(self, folder: str) -> str:
        seen: List[str] = []
        self.glob(folder, seen.append)
        return seen[0] if seen else folder

    def _walk(self, at: str, parts: List[str], visit: Callable[[str], None]) -> None:
        if not parts:
            visit(at)
            return
        plain = not any(sign in parts[0] for sign in "*?[")
        for name in [parts[0]] if plain else fnmatch.filter(self._list(at), parts[0]):
            where = self._step(at, name, 0)
            if where is not None:
                self._walk(where, parts[1:], visit)

    def _step(self, at: str, name: str, hops: int) -> Optional[str]:
        """Into a folder by a name, links followed and remembered; None where that leads nowhere."""
        if name in ("", "."):
            return at
        if name == "..":
            return os.path.dirname(at)
        path = at.rstrip("/") + "/" + name
        target = self._target(path)
        if target is None:
            return path if name in self._names.get(at, ()) or os.path.lexists(path) else None
        if hops > MAX_HOPS:
            return None
        where: Optional[str] = "/" if target.startswith("/") else at
        for part in target.split("/"):
            where = self._step(where, part, hops + 1) if where is not None else None
        return where

    def _target(self, path: str) -> Optional[str]:
        if path not in self._targets:
            try:
                self._targets[path] = self.links[path] = os.readlink(path)
            except OSError as error:
                self._targets[path] = None
                if error.errno not in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
                    self._fail(path, error)
        return self._targets[path]

    def _list(self, folder: str) -> List[str]:
        if folder not in self._names:
            try:
                self._names[folder] = sorted(os.listdir(folder))[:MAX_NAMES]
            except OSError as error:
                self._names[folder] = []
                if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                    self._fail(folder, error)
        return self._names[folder]

    def _fail(self, path: str, error: OSError) -> None:
        self.errors[path] = errno.errorcode.get(error.errno or 0, "EIO")

    def read(self, path: str) -> None:
        """A regular file's text; of everything else only that it is there."""
        if path in self._read:
            return
        self._read.add(path)
        self.at = path
        try:
            mode = os.stat(path).st_mode
            if stat.S_ISREG(mode):
                with open(path, "rb", buffering=0) as file:
                    self.files[path] = _text(file.read(MAX_FILE) or b"")
            elif not stat.S_ISDIR(mode):
                self.files[path] = ""
        except OSError as error:
            self._fail(path, error)

    def name(self, path: str) -> None:
        """That it is there."""
        if not os.path.isdir(path):
            self.files.setdefault(path, "")

    def open(self, path: str) -> None:
        """Whether a device opens for reading and writing; it is closed at once."""
        try:
            os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
            self.files[path] = ""
        except OSError as error:
            self._fail(path, error)


def run(argv: List[str], timeout: float) -> Reply:
    """A command to its end: code, output, errors. At the deadline its process group is killed: code 124."""
    program = sys.executable if argv[0] == "python3" else shutil.which(argv[0]) or shutil.which(argv[0], path=SBIN)
    if not program:
        return 127, "", argv[0] + ": not found"
    env = dict(os.environ, LC_ALL="C", PATH=os.environ.get("PATH", "") + ":" + SBIN)
    pipe = subprocess.PIPE
    try:
        child = subprocess.Popen(
            [program] + argv[1:], stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=True, env=env
        )
    except OSError as error:
        return 126, "", str(error)
    with child:
        try:
            out, err = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            return 124, "", "%s did not end within %g s" % (" ".join(argv), timeout)
    return child.returncode, _text(out), _text(err)


def _text(data: bytes) -> str:
    return data[:MAX_REPLY].decode("utf-8", "replace")


def reply_to(argv: List[str], item: Dict[str, Any]) -> Tuple[List[str], Reply]:
    """The reply to the first of the alternatives that ends well, and which that was; only lines that are wanted."""
    answer = run(argv, item["timeout"])
    for other in item.get("or", ()):
        if answer[0] == 0:
            break
        second = run(other, item["timeout"])
        if second[0] == 0:
            argv, answer = other, second
    if item.get("keep") and answer[0] == 0:
        wanted = re.compile(item["keep"])
        answer = 0, "".join(line for line in answer[1].splitlines(keepends=True) if wanted.search(line)), ""
    return argv, answer


def lines(items: List[Dict[str, Any]]) -> Iterator[Tuple[List[str], Dict[str, Any]]]:
    """The commands of a request; ``{}`` stands for each name that the pattern ``each`` matches."""
    files = Files()
    for item in items:
        names = files.matched(item["each"])[:MAX_EACH] if item.get("each") else [os.uname().nodename]
        for name in names:
            yield [word.replace("{}", name) for word in item["argv"]], item


def environment(wanted: str, secret: str, no_secret: str) -> str:
    """The environment's lines whose names are wanted; secrets never leave the machine."""
    out = []
    for name in sorted(os.environ):
        if re.search(wanted, name):
            hide = re.search(secret, name, re.I) and not re.search(no_secret, name, re.I)
            value = MASK if hide and os.environ[name] else os.environ[name]
            out.append(name + "=" + value.replace("\n", " ").encode("utf-8", "replace").decode("utf-8"))
    return "\n".join(out) + "\n"


def versions(wanted: List[str]) -> str:
    """What this Python has installed, by the names of folders: nothing is imported."""
    packages: Dict[str, str] = {}
    libraries = []
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        for name in names:
            found = DISTRIBUTION.match(name)
            word = re.sub(r"[-_.]+", "-", found.group(1)).lower() if found else ""
            if found and word in wanted:
                packages.setdefault(word, found.group(2))
        library = os.path.join(folder, "nvidia", "nccl", "lib", "libnccl.so.2")
        if os.path.exists(library):
            libraries.append(library)
    told = {"python": "%d.%d.%d" % sys.version_info[:3], "packages": packages, "nccl_libraries": libraries}
    return json.dumps(told)


def models(folders: List[str]) -> str:
    """Models in the hub's cache and below other folders: size, digest of the index, files that it names in vain."""
    home = os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface")
    cached = os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")
    found = []
    for pattern in [cached + "/models--*/snapshots/*"] + [folder + "/*" for folder in folders]:
        with_config = [os.path.dirname(path) for path in sorted(glob.glob(pattern + "/config.json"))]
        found += [_model(path) for path in with_config[:MAX_EACH]]
    return json.dumps(found)


def _model(path: str) -> Dict[str, Any]:
    index = os.path.join(path, "model.safetensors.index.json")
    sizes, missing, digest = 0, [], None
    try:
        names = sorted(os.listdir(path))
        sizes = sum(os.path.getsize(os.path.join(path, name)) for name in names)
        if os.path.exists(index):
            with open(index, "rb") as file:
                text = file.read(MAX_REPLY * 4)
            digest = hashlib.sha256(text).hexdigest()
            wanted = sorted(set(json.loads(text.decode("utf-8")).get("weight_map", {}).values()))
            missing = [name for name in wanted if name not in names]
    except (OSError, ValueError, AttributeError, TypeError):
        digest = None
    return {"path": path, "size": sizes, "index_digest": digest, "missing": missing}


def look(request: Dict[str, Any]) -> Dict[str, Any]:
    """All that a request names, read at once; what does not end in time is named and left."""
    files = Files()
    replies: Dict[str, Reply] = {}
    waiting = list(lines(request["commands"]))[::-1]
    lock = threading.Lock()

    def read() -> None:
        for kind, visit in (("files", files.read), ("names", files.name), ("devices", files.open)):
            for pattern in request[kind]:
                files.glob(pattern, visit)
        files.at = ""

    def work() -> None:
        while True:
            with lock:
                if not waiting:
                    return
                argv, item = waiting.pop()
            line, answer = reply_to(argv, item)
            replies[" ".join(shlex.quote(word) for word in line)] = answer

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(WORKERS, len(waiting)))]
    threads.append(threading.Thread(target=read, daemon=True))
    end = time.monotonic() + request["deadline"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    if files.at:
        files.errors[files.at] = "ETIMEDOUT"
    return answered(request, files, dict(replies))


def answered(request: Dict[str, Any], files: Files, replies: Dict[str, Reply]) -> Dict[str, Any]:
    """The answer, with what the probe knows without a program."""
    own = request["own"]
    if "env" in own:
        replies["env"] = 0, environment(*own["env"]), ""
    if "versions" in own:
        replies["shoal-probe versions"] = 0, versions(own["versions"]), ""
    if "models" in own:
        replies["shoal-probe models"] = 0, models(own["models"]), ""
    looked = [os.path.expanduser(pattern) for kind in ("files", "names", "devices") for pattern in request[kind]]
    return {
        "files": dict(files.files),
        "links": dict(files.links),
        "errors": dict(files.errors),
        "replies": replies,
        "looked": looked,
        "taken": time.time(),
    }


def packed(request: Dict[str, Any]) -> str:
    """All that a request names, as one word."""
    return base64.b64encode(zlib.compress(json.dumps(look(request)).encode("utf-8"), 6)).decode("ascii")


def answer(text: str) -> None:
    """The program that runs on the other machine: look, print, and do not wait for what hangs."""
    sys.stdout.write(MARK + packed(json.loads(text)) + "\n")
    sys.stdout.flush()
    os._exit(0)
