"""The relay of a push, and those who call it: any program on the fabric may."""

import socket
import subprocess
import sys
from types import SimpleNamespace
from typing import Self

import pytest

from shoal.host import relay
from shoal.host.relay import Relay


def answered(line: object) -> list[str]:
    """What is told when somebody calls on that line."""
    told: list[str] = []
    taken = Relay(lambda what, **_: told.append(what))
    taken._callers.acquire()
    taken._call(line, "10.0.0.9")  # type: ignore[arg-type]
    return told


@pytest.mark.parametrize(
    "words", ["null", "[]", "{}", '{"file": 0}', '{"file": 0, "offset": 0, "proof": "\u00e9"}', "x"]
)
def test_a_caller_who_says_nonsense_is_hung_up_on(words: str) -> None:
    """Any program may call: what it says is no error of ours."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(words.encode() + b"\n")
        assert (answered(ours), ours.fileno()) == ([], -1)


def test_a_caller_who_speaks_slowly_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever says a letter every nine seconds does not keep a place for an hour: there are eight."""
    now, got = [0.0], []

    class Slow:
        """A line on which letters drip."""

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            """Close it."""

        def settimeout(self, _: float) -> None:
            """Letters come in time."""

        def sendall(self, _: bytes) -> None:
            """Take the nonce."""

        def recv(self, _: int) -> bytes:
            now[0] += 9.0
            got.append(now[0])
            return b"a"

    monkeypatch.setattr(relay, "time", SimpleNamespace(monotonic=lambda: now[0]))
    assert (answered(Slow()), got) == ([], [9.0, 18.0])


def test_a_chair_that_is_lost_in_the_middle_of_a_piece_is_silent() -> None:
    """The relay ends, and lets go of port and lock, though its input stays open and half of an order is there."""
    code = "from shoal.host import relay; relay.PATIENCE = relay.TICK = 0.1; relay.main()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
        assert child.stdin is not None
        child.stdin.write(b'{"do": "put", "file": 0, "at": 0, "size": 100}\nhalf')
        child.stdin.flush()
        try:
            assert child.wait(20) == 1
        finally:
            child.kill()
