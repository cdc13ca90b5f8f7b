"""Docker Compose v2: the plugin of this machine, else the program out of Debian's package of it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE, RELEASES = "docker-compose", ("trixie", "forky")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def find(folder: Path) -> tuple[str, ...]:
    """The words that call Compose v2; skipped where neither a plugin nor a package is to be had.

    Debian 12 has docker-compose 1.29, the releases after it have v2 under the same name. The package is fetched with
    lists of its own and unpacked into ``folder``: nothing on the machine changes.
    """
    plugin = ("docker", "compose")
    if shutil.which("docker") and _is_v2(plugin):
        return plugin
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb") and KEYRING.is_file()):
        pytest.skip("no Docker Compose v2: the plugin is not installed, and this is no Debian to take it from")
    for program in _unpacked(folder):
        if _is_v2((str(program),)):
            return (str(program),)
    pytest.skip("no Docker Compose v2: the plugin is not installed, and no release of Debian gave one")


def _is_v2(words: tuple[str, ...]) -> bool:
    done = subprocess.run([*words, "version", "--short"], capture_output=True, text=True, check=False)
    major = done.stdout.strip().removeprefix("v").partition(".")[0]
    return done.returncode == 0 and major.isdigit() and int(major) >= 2


def _unpacked(folder: Path) -> Iterator[Path]:
    told = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)"], capture_output=True, text=True, check=False
    )
    origins = dict.fromkeys(line.partition(" ")[2] for line in told.stdout.splitlines() if line.startswith("Debian "))
    for number, (origin, release) in enumerate((origin, release) for origin in origins for release in RELEASES):
        own = folder / str(number)
        (own / "lists/partial").mkdir(parents=True)
        (own / "cache/archives/partial").mkdir(parents=True)
        (own / "sources.list").write_text(f"deb [signed-by={KEYRING}] {origin} {release} main\n")
        options = [
            "-o", f"Dir::Etc::sourcelist={own}/sources.list", "-o", "Dir::Etc::sourceparts=-",
            "-o", f"Dir::State::lists={own}/lists", "-o", f"Dir::Cache={own}/cache",
            "-o", "APT::Sandbox::User=root",
        ]  # fmt: skip
        for words in (("update",), ("download", PACKAGE)):
            argv = ["apt-get", "-qq", *options, *words]
            subprocess.run(argv, cwd=own, capture_output=True, check=False, timeout=120)
        for package in own.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(package), str(own / "root")], check=True, timeout=60)
        yield from (
            path for path in (own / "root").rglob("docker-compose") if os.access(path, os.X_OK) and path.is_file()
        )
