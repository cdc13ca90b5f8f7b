"""BANNER, PREFLIGHT and CLEAN: what is told, and what is removed."""

import io
import socket
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from shoal.agent.preflight import address_is_local, banner, clean, plugin
from shoal.agent.rpc import tidy
from shoal.log import MASK, Event, EventLog
from shoal.spec.env import AgentSettings, agent_settings


class Heard(list[Event]):
    """A log that keeps what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.log = EventLog(io.StringIO(), clock=lambda: 0.0)
        self.log.listeners.append(self.append)

    @property
    def lines(self) -> list[str]:
        return [event.message for event in self]


@pytest.fixture
def heard() -> Heard:
    return Heard()


def settings(folder: Path) -> AgentSettings:
    return agent_settings({"RAY_MODE": "head", "VLLM_HOST_IP": "127.0.0.1", "SHOAL_RAY_TEMP_DIR": str(folder)})


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder with its text, and every empty folder."""
    return {
        str(path.relative_to(folder)): "/" if path.is_dir() else path.read_text()
        for path in sorted(folder.rglob("*"))
        if not path.is_dir() or not any(path.iterdir())
    }


def used(folder: Path) -> Path:
    """A folder as Ray leaves it."""
    (folder / "session_2026-11-23" / "sockets").mkdir(parents=True)
    (folder / "session_2026-11-23" / "sockets" / "raylet").write_text("")
    (folder / "session_latest").symlink_to("session_2026-11-23")
    (folder / "ray_current_cluster").write_text("127.0.0.1:6379")
    (folder / "notes.txt").write_text("mine")
    return folder


def test_a_folder_that_is_missing_is_made_as_ours(tmp_path: Path, heard: Heard) -> None:
    """A temp folder that is missing is made, private and marked, without a word."""
    folder = tmp_path / "a" / "b"
    clean(heard.log, settings(folder))
    assert (tree(folder), stat.S_IMODE(folder.stat().st_mode), list(heard)) == ({".shoal": ""}, 0o700, [])


def test_an_empty_folder_becomes_ours(tmp_path: Path, heard: Heard) -> None:
    """An empty folder, such as a fresh mount, is marked as ours."""
    clean(heard.log, settings(tmp_path))
    assert (tree(tmp_path), list(heard)) == ({".shoal": ""}, [])


def test_a_folder_of_somebody_else_is_left_as_it_is(tmp_path: Path, heard: Heard) -> None:
    """A folder with a Ray session that is not ours keeps every file, and that is told."""
    before = tree(used(tmp_path))
    clean(heard.log, settings(tmp_path))
    assert tree(tmp_path) == before
    assert list(heard) == [Event("clean", f"{tmp_path} was made by somebody else: nothing removed", "warn")]


def test_sessions_of_ours_are_removed_and_nothing_else(tmp_path: Path, heard: Heard) -> None:
    """In a folder of ours the sessions and the name of the old cluster go; all else stays."""
    (used(tmp_path) / ".shoal").touch()
    clean(heard.log, settings(tmp_path))
    assert tree(tmp_path) == {".shoal": "", "notes.txt": "mine"}
    assert heard.lines == ["removed session_2026-11-23 of an earlier run", "removed session_latest of an earlier run"]


def test_a_session_that_somebody_uses_stays(tmp_path: Path, heard: Heard) -> None:
    """In a folder of ours that a living Ray now uses nothing is removed, and one warning names that process."""
    (used(tmp_path) / ".shoal").touch()
    before = tree(tmp_path)
    argv = (sys.executable, "-c", "input()", f"--session-dir={tmp_path}/session_2026-11-23")
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as ray:
        name = psutil.Process(ray.pid).name()
        clean(heard.log, settings(tmp_path))
        assert ray.poll() is None
        ray.kill()
    assert tree(tmp_path) == before
    assert list(heard) == [Event("clean", f"{tmp_path} is in use by {name} (pid {ray.pid}): nothing removed", "warn")]


def test_where_there_is_nothing_to_remove_nobody_is_warned(tmp_path: Path, heard: Heard) -> None:
    """A folder of ours without a session is fit for a start, whoever looks into it."""
    (tmp_path / ".shoal").touch()
    with subprocess.Popen((sys.executable, "-c", "input()"), stdin=subprocess.PIPE, cwd=tmp_path) as somebody:
        clean(heard.log, settings(tmp_path))
        somebody.kill()
    assert (tree(tmp_path), list(heard)) == ({".shoal": ""}, [])


def test_a_link_is_removed_and_not_followed(tmp_path: Path, heard: Heard) -> None:
    """A session that is a link to a folder elsewhere goes as a link; what it names stays."""
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "ray"
    elsewhere.mkdir()
    (elsewhere / "f").write_text("kept")
    folder.mkdir()
    (folder / ".shoal").touch()
    (folder / "session_x").symlink_to(elsewhere)
    clean(heard.log, settings(folder))
    assert (tree(folder), tree(elsewhere)) == ({".shoal": ""}, {"f": "kept"})


def test_the_second_start_cleans_what_the_first_one_made(tmp_path: Path, heard: Heard) -> None:
    """A folder that we made is ours at the next start."""
    folder = tmp_path / "ray"
    clean(heard.log, settings(folder))
    used(folder)
    clean(heard.log, settings(folder))
    assert tree(folder) == {".shoal": "", "notes.txt": "mine"}


def test_the_banner_names_every_setting_and_where_it_came_from(heard: Heard) -> None:
    """Settings of the agent come with their origin, then the variables of others that matter here."""
    env = {
        "SHOAL_LOG": "story",
        "RAY_MODE": "worker",
        "VLLM_HOST_IP": "10.0.0.2",
        "RAY_ADDRESS": "10.0.0.1:6379",
        "SHOAL_RESTARTS": "2",
        "SHOAL_SERVE_PORT": "8701",
        "NCCL_IB_HCA": "mlx5_0",
        "OMP_NUM_THREADS": "4",
        "LD_PRELOAD": "x.so",
    }
    banner(heard.log, env)
    assert {event.name for event in heard} == {"banner"}
    assert heard.lines == [
        "RAY_MODE=worker (set)",
        "VLLM_HOST_IP=10.0.0.2 (set)",
        "RAY_ADDRESS=10.0.0.1:6379 (set)",
        "SHOAL_PORT_BASE=27000 (default)",
        "SHOAL_AGENT_PORT=8700 (default)",
        "SHOAL_SERVE_PORT=8701 (set, the default)",
        "SHOAL_RAY_TEMP_DIR=/tmp/ray (default)",
        "SHOAL_OBJECT_STORE_MB=200 (default)",
        "SHOAL_JOIN_TIMEOUT=120 (default)",
        "SHOAL_LOST_AFTER=30 (default)",
        "SHOAL_RESTARTS=2 (set)",
        "SHOAL_RESTART_WINDOW=600 (default)",
        "SHOAL_SHARE_GPUS=0 (default)",
        "SHOAL_EXECUTOR=auto (default)",
        "SHOAL_LOG=story (set, the default)",
        "NCCL_IB_HCA=mlx5_0 (set)",
        "OMP_NUM_THREADS=4 (set)",
    ]


def test_a_plugin_that_is_not_there_is_told(heard: Heard, tmp_path: Path) -> None:
    """A path that leads to no file is a warning with its fix; a file, a bare name and nothing are none."""
    there, gone = tmp_path / "libnccl-net.so", tmp_path / "gone.so"
    there.touch()
    for value in (str(there), "ofi", "none", ""):
        plugin(heard.log, {"NCCL_NET_PLUGIN": value})
    assert heard == []
    plugin(heard.log, {"NCCL_NET_PLUGIN": str(gone)})
    told = f"NCCL_NET_PLUGIN={gone} is not there: NCCL uses its own network; correct the path, or remove the variable"
    assert [(event.level, event.message) for event in heard] == [("warn", told)]


def test_the_banner_names_what_nothing_reads(heard: Heard) -> None:
    """Variables of hand-written files are accepted, and told to be read by nothing."""
    banner(heard.log, {"MASTER_ADDR": "10.0.0.1", "RANK": "", "NCCL_TIMEOUT": "60"})
    assert heard.lines[-1] == "read by nothing here: MASTER_ADDR, NCCL_TIMEOUT"


def test_the_banner_masks_secrets(heard: Heard) -> None:
    """No secret is in the banner, though its name is; the path of a token is told."""
    secrets = {"HF_TOKEN": "hf_1", "HUGGING_FACE_HUB_TOKEN": "hf_2", "VLLM_API_KEY": "k", "RAY_AUTH_TOKEN": "t"}
    banner(heard.log, secrets | {"RAY_AUTH_TOKEN_PATH": "/s/ray.token"})
    assert [line for line in heard.lines if not line.endswith("(default)")] == [
        f"HF_TOKEN={MASK} (set)",
        f"HUGGING_FACE_HUB_TOKEN={MASK} (set)",
        f"RAY_AUTH_TOKEN={MASK} (set)",
        "RAY_AUTH_TOKEN_PATH=/s/ray.token (set)",
        f"VLLM_API_KEY={MASK} (set)",
    ]


@pytest.mark.enable_socket
def test_an_address_is_local_where_a_socket_can_have_it() -> None:
    """Loopback is this machine's, a documentation address is not."""
    assert (address_is_local("127.0.0.1"), address_is_local("192.0.2.7")) == (True, False)


def test_old_sockets_of_vllm_go_and_nothing_else(tmp_path: Path) -> None:
    """The folder of vLLM's sockets is made, and loses the sockets of an earlier engine; files stay."""
    folder = tmp_path / "run"
    tidy({"VLLM_RPC_BASE_PATH": str(folder)})
    (folder / "notes").write_text("mine")
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(folder / "old"))
    tidy({"VLLM_RPC_BASE_PATH": str(folder)})
    tidy({})
    assert [path.name for path in folder.iterdir()] == ["notes"]
