"""The hub's token by file."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from shoal.agent.hub import by_file
from shoal.host.local import LocalHost
from shoal.spec.worker_env import for_raylet, passed_on


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
def test_the_token_is_in_a_file_that_only_its_owner_reads(name: str, tmp_path: Path) -> None:
    """The file is named to children, and the token itself is in no environment of theirs."""
    folder = tmp_path / "state"
    env = by_file({name: " hf_x\n", "A": "b"}, LocalHost(), str(folder))
    file = folder / "hub.token"
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("hf_x\n", 0o600)
    assert passed_on(env) == {"A": "b", "HF_TOKEN_PATH": str(file)}
    assert for_raylet(env)["HF_TOKEN_PATH"] == str(file)


def test_otherwise_nothing_changes(tmp_path: Path) -> None:
    """No token, a file that is named already, or no folder to write to: the environment is as it was."""
    for env, folder in (
        ({"A": "b", "HF_TOKEN": ""}, str(tmp_path)),
        ({"HF_TOKEN": "hf_x", "HF_TOKEN_PATH": "/mine"}, str(tmp_path)),
        ({"HF_TOKEN": "hf_x"}, ""),
    ):
        assert by_file(env, LocalHost(), folder) == env
    assert list(tmp_path.iterdir()) == []


def test_the_hubs_client_reads_it(tmp_path: Path) -> None:
    """Hugging Face's own client finds the token by the file's name."""
    pytest.importorskip("huggingface_hub")
    env = passed_on(by_file({"HF_TOKEN": "hf_x", "PATH": "/usr/bin"}, LocalHost(), str(tmp_path)))
    argv = [sys.executable, "-c", "import huggingface_hub as h; print(h.get_token())"]
    done = subprocess.run(argv, env=env | {"HOME": str(tmp_path)}, capture_output=True, text=True, check=True)
    assert done.stdout == "hf_x\n"
