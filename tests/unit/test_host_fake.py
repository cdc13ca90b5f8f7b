"""A made-up machine: its replies, its files, and what it remembers."""

import pytest

from shoal.errors import HostUnreachable
from shoal.host.base import Result
from shoal.host.fake import FakeHost


def test_a_fake_host_that_is_unreachable_says_so_on_every_call() -> None:
    """A made-up machine that does not answer raises HostUnreachable, whatever it is asked."""
    host = FakeHost({"/f": "x"}, reachable=False, name="gpu-2")
    calls = (
        lambda: host.run(["true"], timeout=1),
        lambda: host.read("/f"),
        lambda: host.read_bytes("/f"),
        lambda: host.list("/"),
        lambda: host.write("/f", "y"),
    )
    told = []
    for call in calls:
        with pytest.raises(HostUnreachable) as raised:
            call()
        told.append(raised.value.what)
    assert (told, host.calls, host.tree) == (["gpu-2 does not answer"] * 5, [], {"/f": "x"})


def test_a_fake_host_answers_from_its_dicts_and_remembers_the_calls() -> None:
    """A made-up machine replies as told, by text or whole result, and knows what it was asked."""
    host = FakeHost({"/a/b/c": "1", "/a/d": "2"}, {"id -u": "0\n", "false": Result(("false",), 1, "", "no")})
    assert host.run(["id", "-u"], timeout=1) == Result(("id", "-u"), 0, "0\n", "")
    assert host.run(["false"], timeout=1, ok=(1,)) == Result(("false",), 1, "", "no")
    host.run(["tee"], timeout=1, ok=(127,), input="secret")
    host.write("/a/e", b"\xff", mode=0o600)
    assert (host.calls, host.inputs) == ([("id", "-u"), ("false",), ("tee",)], [b"", b"", b"secret"])
    assert (host.modes, host.read_bytes("/a/e")) == ({"/a/e": 0o600}, b"\xff")
    assert (host.list("/a"), host.list("/"), host.list("/a/d")) == (("b", "d", "e"), ("a",), ())
