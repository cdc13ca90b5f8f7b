"""The agent's look at its raylet's socket."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoal.agent.raylet_socket import OPTION, RayletSocket

# A process with a child, as `ray start` has a raylet. The child says that it is there: a process just started has no
# command line yet.
PARENT = "import subprocess, sys; subprocess.call([sys.executable, '-c', 'print(flush=True); input()', *sys.argv[1:]])"


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    path = tmp_path / "sockets" / "raylet"
    path.parent.mkdir()
    path.touch()
    return path


@pytest.fixture
def ray(socket: Path) -> Iterator[int]:
    argv = (sys.executable, "-c", PARENT, f"{OPTION}{socket}")
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        # Its child reads the end of the input, and ends; so does it.


def test_a_socket_that_is_there_is_no_trouble(socket: Path, ray: int) -> None:
    """While the socket stays, there is nothing to be told, nor where no Ray runs."""
    look = RayletSocket()
    assert [look.trouble(None), look.trouble(ray), look.trouble(ray)] == ["", "", ""]
    assert socket.exists()


def test_a_socket_that_was_removed_is_told(socket: Path, ray: int) -> None:
    """A raylet lives on without its socket, and no worker reaches it: that is told, and of the next Ray no more."""
    look = RayletSocket()
    look.trouble(ray)
    socket.unlink()
    assert [look.trouble(ray), look.trouble(None)] == [f"its socket {socket} was removed", ""]


def test_a_socket_of_another_raylet_is_told(socket: Path, ray: int) -> None:
    """Where another raylet has opened a socket of the same name, that one gets our workers, and refuses them."""
    look = RayletSocket()
    look.trouble(ray)
    other = socket.with_name("other")
    other.touch()
    other.rename(socket)
    assert look.trouble(ray) == f"its socket {socket} is that of another raylet"


def test_of_a_ray_without_a_known_socket_nothing_is_told(tmp_path: Path) -> None:
    """A Ray whose raylet names no socket that exists is left in peace."""
    argv = (sys.executable, "-c", PARENT, f"{OPTION}{tmp_path}/none")
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert RayletSocket().trouble(process.pid) == ""
