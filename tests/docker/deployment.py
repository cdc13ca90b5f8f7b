"""A deployment folder on a machine, used as its README says: rendered, `.env` filled in, `docker-compose up -d`."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.docker.machine import IMAGE, Machine, until

SHOAL = str(Path(sys.executable).with_name("shoal"))
# Runs on the machine: an HTTP request that prints status and body.
ASK = """\
import sys, urllib.error, urllib.request
url, key, body = sys.argv[1:]
headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
request = urllib.request.Request(url, body.encode() or None, headers)
try:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as reply:
        print(reply.status, reply.read().decode())
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
except OSError as error:
    print(0, error)
"""


@dataclass(frozen=True)
class Deployment:
    """One folder on one machine."""

    machine: Machine
    role: str
    name: str = ""

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.machine.work / (self.name or self.role)

    def render(self) -> None:
        """Write it, with the command that users type."""
        subprocess.run(
            [SHOAL, "render", self.role, "--profile", "cpu", "-o", str(self.folder)],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip

    def fill(self, values: Mapping[str, str], line_end: str = "\n") -> None:
        """``cp .env.example .env``, then edit: the line that sets a variable, or that shows it as a comment."""
        lines = (self.folder / ".env.example").read_text().splitlines()
        # Docker makes a folder that is missing, and that of the example would be one of this machine.
        left = {"SHOAL_IMAGE": IMAGE, "SHOAL_NUM_CPUS": "1", "MODEL_CACHE": "./models"} | dict(values)
        for index, line in enumerate(lines):
            name = line.removeprefix("#").partition("=")[0]
            if "=" in line and name in left:
                lines[index] = f"{name}={left.pop(name)}"
        assert not left, f".env.example has no {sorted(left)}"
        (self.folder / ".env").write_text("".join(line + line_end for line in lines), newline="")

    def secret(self, name: str, text: str) -> None:
        """A file in ``state/`` that only its owner reads."""
        file = self.folder / "state" / name
        file.parent.mkdir(exist_ok=True)
        file.touch(0o600)
        file.write_text(text)

    def compose(self, *words: str, timeout: float = 180) -> str:
        """What docker-compose 1.29 prints, in the folder."""
        done = self.machine.run("docker-compose", *words, cwd=self.folder, timeout=timeout)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr


def ask(machine: Machine, url: str, body: Mapping[str, Any] | None = None, key: str = "") -> tuple[int, str]:
    """Status and body of an answer, asked from a machine; status 0 where nobody answers."""
    text = "" if body is None else json.dumps(body)
    status, _, told = machine.ok(sys.executable, "-c", ASK, url, key, text).partition(" ")
    return int(status), told.strip()


def document(machine: Machine, url: str) -> dict[str, Any]:
    """The JSON document at a URL; nothing where there is none."""
    status, told = ask(machine, url)
    return json.loads(told) if status == 200 else {}


def wait_status(machine: Machine, url: str, state: str, seconds: float) -> dict[str, Any]:
    """The status document at a URL, once its state is the one that is wanted."""
    seen: dict[str, Any] = {}

    def reached() -> bool:
        seen.clear()
        seen.update(document(machine, url))
        return seen.get("state") == state

    until(reached, seconds, lambda: f"{url} says {state}; it says {seen}")
    return seen
