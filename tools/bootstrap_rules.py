"""What bootstrap.py decides, apart from what it does: refusals, locks, stamps, pip's words.

Nothing here starts a process or changes a file, so that the tests can try each rule.
"""

import ast
import hashlib
import operator
import os
import platform
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "requirements"
FORMAT = 1  # part of every stamp: raise it when an environment made before is no longer good
NEED_BYTES = 4_000_000_000  # a full install takes 2.8 GB, and wheels come on the way
OLDEST_GLIBC = (2, 31)  # the newest that a locked wheel asks for


class BootstrapError(Exception):
    """A failure told to the user in three parts: what, what was expected, what mends it."""

    def __init__(self, what: str, expected: str, mend: str) -> None:
        super().__init__(f"{what}\n  expected: {expected}\n  to mend:  {mend}")


# ---------------------------------------------------------------- refusals


def check_python(version: tuple[int, ...]) -> None:
    """Refuse a Python that has no torch wheel in the lock."""
    if not (3, 11) <= version[:2] < (3, 15):
        raise BootstrapError(
            f"this is Python {version[0]}.{version[1]}",
            "Python 3.11 to 3.14, for which the engine's wheels are built",
            "PYTHON=/path/to/python3.12 make up",
        )


def check_platform(system: str, machine: str, libc: str) -> None:
    """Refuse a machine for which no wheel exists, before anything is downloaded."""
    if system != "linux" or machine not in ("x86_64", "aarch64"):
        raise BootstrapError(
            f"this machine is {system} on {machine}",
            "Linux on x86_64 or aarch64, for which the engine's wheels are built",
            "run shoal on such a machine, or in a container of one",
        )
    name, _, version = libc.partition(" ")
    if name != "glibc" or release(version) < OLDEST_GLIBC:
        raise BootstrapError(
            f"this system's C library is {libc or 'not glibc'}",
            "glibc {}.{} or newer (Debian 11, Ubuntu 20.04 or later)".format(*OLDEST_GLIBC),
            "run shoal on a newer system, or in a container of one",
        )


def check_disk(free: int, present: int, where: Path) -> None:
    """Refuse a disk that would fill half-way; what an earlier run left counts as paid."""
    if free + present < NEED_BYTES:
        raise BootstrapError(
            f"{free / 1e9:.1f} GB are free on the disk of {where}",
            f"{(NEED_BYTES - present) / 1e9:.1f} GB, for torch, vLLM, Ray and a model",
            "free some space, or bootstrap with --venv on another disk",
        )


def check_ensurepip(*, found: bool) -> None:
    """Name Debian's missing half of venv, which otherwise fails with an odd message."""
    if not found:
        raise BootstrapError(
            f"this Python ({sys.executable}) has no ensurepip, so it makes no environment",
            "Python's own venv and ensurepip modules",
            "apt install python3-venv   (or: PYTHON=/path/to/python3.12 make up)",
        )


def check_folder(venv: Path) -> None:
    """Refuse a folder that is somebody else's, or that cannot be written."""
    if venv.exists() and not (venv / "pyvenv.cfg").is_file():
        left_by_us = venv.is_dir() and {p.name for p in venv.iterdir()} <= {"bootstrap.log", "tmp"}
        if not left_by_us:
            raise BootstrapError(
                f"{venv} is there, and is not a virtual environment (it has no pyvenv.cfg)",
                "a folder that this program may fill, or none",
                f"move {venv} away, then: make up",
            )
    if not os.access(venv if venv.exists() else venv.parent, os.W_OK | os.X_OK):
        raise BootstrapError(
            f"{venv if venv.exists() else venv.parent} cannot be written",
            "a folder in which this user may make files",
            "run as the folder's owner, or copy the project to a folder of your own",
        )


# ---------------------------------------------------------------- the locks


def release(version: str) -> tuple[int, ...]:
    """Turn '3.12.1' into (3, 12, 1), as much of it as is numbers."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def environment() -> dict[str, str]:
    """Give the values that the locks' markers ask about."""
    return {
        "sys_platform": sys.platform,
        "platform_machine": platform.machine(),
        "platform_system": platform.system(),
        "python_full_version": "{}.{}.{}".format(*sys.version_info[:3]),
        "python_version": "{}.{}".format(*sys.version_info[:2]),
        "implementation_name": sys.implementation.name,
        "platform_python_implementation": platform.python_implementation(),
    }


COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def applies(marker: str, env: dict[str, str]) -> bool:
    """Say whether a requirement with this marker is installed here.

    A marker happens to be a Python expression, so Python parses it; only names and
    comparisons mean anything, and all else raises. It only serves the bar: pip decides.
    """

    def value(node: ast.expr) -> bool:
        if isinstance(node, ast.BoolOp):
            join = all if isinstance(node.op, ast.And) else any
            return join(value(part) for part in node.values)
        if not (isinstance(node, ast.Compare) and isinstance(node.left, ast.Name)):
            raise TypeError(marker)
        compare = COMPARE[type(node.ops[0])]
        have, want = env[node.left.id], str(ast.literal_eval(node.comparators[0]))
        if "version" in node.left.id:
            return bool(compare(release(have), release(want)))
        return bool(compare(have, want))

    return value(ast.parse(marker, mode="eval").body)


def normal(name: str) -> str:
    """Spell a distribution's name in the one way that indexes compare by."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(lock: str, env: dict[str, str]) -> set[str]:
    """Name what pip will install from this lock on this machine."""
    found = re.findall(r"^([\w.-]+)==[^\s;]+(?: *; *([^\\\n]+))?", lock, re.MULTILINE)
    return {normal(name) for name, marker in found if not marker or applies(marker.strip(), env)}


def stamp(*parts: bytes) -> str:
    """Sum up what an installed set was made from; another sum means work to do."""
    digest = hashlib.sha256()
    for part in (str(FORMAT).encode(), "{}.{}".format(*sys.version_info[:2]).encode(), *parts):
        digest.update(b"%d:" % len(part) + part)
    return digest.hexdigest() + "\n"


def stamps() -> dict[str, str]:
    """Give each set's stamp as it should be now."""
    up, dev, torch = ((LOCKS / f"{n}.txt").read_bytes() for n in ("up", "dev", "torch-cpu"))
    shoal = (ROOT / "pyproject.toml").read_bytes()
    return {
        "torch": stamp(torch),
        "up": stamp(up),
        "shoal": stamp(shoal, bytes(ROOT)),
        "dev": stamp(up, dev),
    }


def undone(venv: Path, wanted: dict[str, str]) -> list[str]:
    """List the sets whose stamp in the environment is missing or other than wanted."""

    def has(name: str) -> str:
        file = venv / f"bootstrap-{name}.stamp"
        return file.read_text() if file.is_file() else ""

    return [name for name, text in wanted.items() if has(name) != text]


def outdated(venv: Path) -> str:
    """Say why the environment must be made anew, or nothing.

    One of another Python's has its packages elsewhere, and one that was moved has
    commands which start a Python that is not there.
    """
    file = venv / "pyvenv.cfg"
    if not file.is_file():
        return ""
    lines = (line.partition("=") for line in file.read_text().splitlines())
    config = {key.strip(): text.strip() for key, _, text in lines}
    now = "{}.{}".format(*sys.version_info[:2])
    made = "{}.{}".format(*(*release(config.get("version", now)), 0, 0)[:2])
    if made != now:
        return f"it was made by Python {made}, and this is {now}"
    command = config.get("command", "")
    path = command[command.find("/", command.find(" -m venv ")) :]
    if command and Path(path).resolve() != venv.resolve():
        return f"it was made as {path}"
    return "" if (venv / "bin/python").exists() else "its Python is gone"


NO_ANSWER = (
    "NewConnectionError|ConnectTimeout|ConnectionError|Read timed out|ReadTimeout|ProxyError"
    "|name resolution|SSLError|SSLCertVerification|Max retries|connection broken|HTTP error"
)
TROUBLE = (
    (
        "DO NOT MATCH THE HASHES",
        "the very files whose sha256 requirements/ lists; a cache or the index changed one",
        ".venv/bin/python -m pip cache purge; make up",
    ),
    ("No space left on device", "4 GB of free disk", "df -h . ; free some space, then: make up"),
    (
        "Permission denied|Read-only file system",
        "an environment which this user may write",
        "run as the owner of .venv, or: make clean, then: make up",
    ),
    (
        NO_ANSWER,
        "a package index that answers; this one does not (no network, a proxy, a firewall?)",
        "bring the network up, or: PIP_INDEX_URL=<index> PIP_FIND_LINKS=<wheels> make up",
    ),
    (
        "No matching distribution",
        "an index that holds this very version for this Python and machine",
        "PIP_INDEX_URL=<an index which has it> or PIP_FIND_LINKS=<a folder of wheels> make up",
    ),
)


def last_words(output: str) -> str:
    """Pick the lines of pip's output which a person would look for."""
    lines = [line.strip()[:200] for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(ERROR|OSError|error)\b", line)]
    plain = [line for line in lines if not line.startswith("WARNING")]
    return "\n    ".join((errors or plain or lines)[-3:])


def diagnose(label: str, output: str, log: Path) -> BootstrapError:
    """Turn pip's output into a failure that says what to do."""
    unknown = ("", "pip to end well", f"read {log}, then: make up")
    known = (trouble for trouble in TROUBLE if re.search(trouble[0], output))
    _, expected, mend = next(known, unknown)
    return BootstrapError(f"{label} failed\n    {last_words(output)}", expected, mend)


def fetched(output: str) -> int:
    """Count the wheels which pip has got hold of, by any of its ways."""
    ways = r"^ *(?:Downloading|Using cached|Processing) \S+\.whl(?= |$)|^Requirement already"
    return len(re.findall(ways, output, re.MULTILINE))
