"""Steps for another machine, sent to its ``python3 -`` with the program that does them."""

import base64
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from shoal.errors import CommandFailed, WriteFailed
from shoal.host.base import Host
from shoal.host.hand import MARK

IMPORT = "from shoal.host import handed, probe\n"
Step = Mapping[str, Any]


def program(request: Mapping[str, Any]) -> str:
    """The program with its request, as one text for ``python3 -``. The probe comes along where it is asked for."""
    reads = any(step["do"] == "read" for step in request["steps"])
    source = _source("hand").replace(IMPORT, "")
    before = "".join(_module(name) for name in (("handed", "probe") if reads else ("handed",)))
    return f"import types\n{before}{source}\nanswer({json.dumps(json.dumps(request))})\n"


def _module(name: str) -> str:
    return f"{name} = types.ModuleType({name!r})\nexec({_source(name)!r}, {name}.__dict__)\n"


@cache
def _source(name: str) -> str:
    return files("shoal.host").joinpath(f"{name}.py").read_text(encoding="utf-8")


def data(content: bytes) -> str:
    """Bytes as a step carries them."""
    return base64.b64encode(content).decode("ascii")


def carry_out(host: Host, root: str, steps: Sequence[Step], *, timeout: float = 60.0) -> list[Any]:
    """Every step in turn, on that host; their answers. ``root`` may begin with ``~``.

    Raises:
        HostError: the host could not be asked, or a step could not be done; the steps after it were not.
    """
    text = program({"root": root, "steps": [dict(step) for step in steps]})
    result = host.run(("python3", "-"), timeout=timeout, ok=range(256), input=text)
    if result.code == 127:
        fix = f"sudo apt install python3   # on {host.name}"
        raise CommandFailed(f"{host.name} has no python3, by which shoal works there", fix=fix)
    line = next((line for line in result.out.splitlines() if line.startswith(MARK)), "")
    if not line:
        said = (result.err or result.out).strip().splitlines()[-1:] or ["it printed nothing"]
        raise CommandFailed(f"{host.name}: python3 ended with code {result.code}", why=said[0])
    told = json.loads(line.removeprefix(MARK))
    if error := told["error"]:
        raise _failure(host.name, error)
    return list(told["answers"])


def _failure(name: str, error: Mapping[str, Any]) -> WriteFailed:
    what = f"{name}: {error['step']} could not be done in {error['path']}"
    if error["full"]:
        return WriteFailed(what, why=f"its disk is full ({error['why']})", fix=f"df -h {error['path']}   # on {name}")
    return WriteFailed(what, why=error["why"], fix=f"ls -ld {error['path']}   # on {name}")
