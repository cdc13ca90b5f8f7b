"""The sign that tells Ray's driver which raylet is this node's."""

import asyncio
from pathlib import Path

import psutil

from shoal.engine.raylet_sign import argv, is_seen, put_up

NODE = "ab" * 28


def test_a_raylet_is_seen_by_name_and_node() -> None:
    """Only a process named after the raylet, whose words name that node, counts; a zombie without words does not."""
    raylet = ("/site-packages/ray/core/src/ray/raylet/raylet", f"--node_id={NODE}")
    assert is_seen(NODE, [(), ("python", "x"), raylet])
    assert not is_seen("cd" * 28, [raylet])
    assert not is_seen(NODE, [("python", f"--node_id={NODE}")])


def test_the_sign_is_what_ray_looks_for() -> None:
    """The sign itself counts as a raylet."""
    assert is_seen(NODE, [argv(NODE)])


def test_the_sign_stands_until_it_is_taken_down(tmp_path: Path) -> None:
    """Put up, it is a process with those words; a second one is not needed then, and both go with the first."""

    async def stands() -> None:
        sign = put_up(NODE, tmp_path)
        assert sign is not None
        process = psutil.Process(sign.pid)
        while not (words := process.cmdline()):  # one just started has no command line yet
            await asyncio.sleep(0.01)
        assert words == list(argv(NODE))
        assert put_up(NODE, tmp_path) is None
        await sign.stop(2.0)
        assert sign.code is not None
        assert not psutil.pid_exists(sign.pid)

    asyncio.run(asyncio.wait_for(stands(), 30))


def test_no_sign_for_a_node_that_is_not_known(tmp_path: Path) -> None:
    """Where the agent tells no node id nothing is started."""
    assert put_up(None, tmp_path) is None
