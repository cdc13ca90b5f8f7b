"""Every rendered compose file is taken by docker-compose 1.29 and by Docker Compose v2."""

import json
import shutil
import subprocess
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.docker.compose_v2 import find

from shoal.ops import render
from shoal.plan.container import PROFILES, ROLES, Profile, Role

pytestmark = pytest.mark.docker
ALL = list(product(ROLES, PROFILES))


@pytest.fixture(scope="session")
def v1() -> tuple[str, ...]:
    """The words that call docker-compose 1.29."""
    if shutil.which("docker-compose") is None:
        pytest.skip("not installed: docker-compose (apt install docker-compose)")
    return ("docker-compose",)


@pytest.fixture(scope="session")
def v2(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The words that call Docker Compose v2."""
    return find(tmp_path_factory.mktemp("compose-v2"))


@pytest.fixture
def folder(tmp_path: Path, role: Role, profile: Profile) -> Path:
    """A rendered folder with `.env` copied from its example."""
    render.write(render.changes(role, profile, tmp_path))
    shutil.copy(tmp_path / ".env.example", tmp_path / ".env")
    return tmp_path


def config(words: tuple[str, ...], folder: Path) -> dict[str, Any]:
    """What `config` makes of the folder's file: variables filled in, anchors resolved."""
    done = subprocess.run([*words, "config"], cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    document: dict[str, Any] = yaml.safe_load(done.stdout)
    return document


def told(document: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """By service: what both Composes must understand alike."""
    return {
        name: (
            str(service["image"]),
            str(service["container_name"]),
            str(service["network_mode"]),
            str(service["ipc"]),
            str(service["restart"]),
            str(service["environment"]["VLLM_HOST_IP"]),
            json.dumps(service["command"]),
        )
        for name, service in document["services"].items()
    }


@pytest.mark.parametrize(("role", "profile"), ALL)
def test_both_composes_take_it_alike(
    v1: tuple[str, ...], v2: tuple[str, ...], folder: Path, role: Role, profile: Profile
) -> None:
    """`config` of neither says a word against the file, and both give the role's services the same meaning."""
    old, new = told(config(v1, folder)), told(config(v2, folder))
    assert set(old) == {"worker": {"ray-node"}, "head": {"ray-node", "vllm"}}[role]
    assert new == old
