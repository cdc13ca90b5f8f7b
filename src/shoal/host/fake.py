"""A machine made of a dict: files and replies. Shipped, so that users of the package test without a machine too."""

from collections.abc import Container, Mapping, Sequence
from pathlib import PurePosixPath

from shoal.errors import CommandFailed, HostUnreachable
from shoal.host.base import Result, encoded, text


class FakeHost:
    """Answers from ``tree`` (path -> content) and ``replies`` (argv as one line -> Result, or its output).

    It remembers what it was asked: ``calls``, the ``inputs`` that came with them, and the ``modes`` of written files.

    Raises:
        HostUnreachable: on every call, where ``reachable`` is False.
    """

    def __init__(
        self,
        tree: Mapping[str, str | bytes] | None = None,
        replies: Mapping[str, Result | str | bytes] | None = None,
        *,
        name: str = "fake",
        reachable: bool = True,
    ) -> None:
        self.name = name
        self.tree = dict(tree or {})
        self.replies = dict(replies or {})
        self.reachable = reachable
        self.calls: list[tuple[str, ...]] = []
        self.inputs: list[bytes] = []
        self.modes: dict[str, int] = {}

    def _connect(self) -> None:
        if not self.reachable:
            raise HostUnreachable(f"{self.name} does not answer")

    def run(
        self, argv: Sequence[str], *, timeout: float, ok: Container[int] = (0,), input: str | bytes | None = None
    ) -> Result:
        """Reply as told; 127 for a command that nobody told about. ``timeout`` never passes here."""
        del timeout
        self._connect()
        argv = tuple(argv)
        self.calls.append(argv)
        self.inputs.append(encoded(input or b""))
        reply = self.replies.get(" ".join(argv), Result(argv, 127, "", f"{argv[0]}: not found"))
        result = reply if isinstance(reply, Result) else Result.of(argv, 0, encoded(reply), b"")
        return result.require(ok, self.name)

    def start(self, argv: Sequence[str]) -> "FakeTalk":
        """A talk whose lines are the reply's."""
        return FakeTalk(self, self.run(argv, timeout=0, ok=range(256)))

    def read(self, path: str) -> str | None:
        """Text from the tree, or None."""
        content = self.read_bytes(path)
        return None if content is None else text(content)

    def read_bytes(self, path: str) -> bytes | None:
        """Content from the tree, or None."""
        self._connect()
        content = self.tree.get(path)
        return None if content is None else encoded(content)

    def list(self, path: str) -> tuple[str, ...]:
        """Names under a path of the tree."""
        self._connect()
        base = PurePosixPath(path)
        below = (PurePosixPath(name) for name in self.tree)
        return tuple(sorted({name.relative_to(base).parts[0] for name in below if base in name.parents}))

    def write(self, path: str, content: str | bytes, *, mode: int = 0o644) -> None:
        """Put content into the tree."""
        self._connect()
        self.tree[path] = content
        self.modes[path] = mode


class FakeTalk:
    """Says the lines of a reply, and remembers what it was told in the host's ``inputs``."""

    def __init__(self, host: FakeHost, reply: Result) -> None:
        self._host, self._reply, self._lines = host, reply, iter(reply.out.splitlines())

    def send(self, data: bytes) -> None:
        """Remember it."""
        self._host.inputs.append(data)

    def line(self) -> str | None:
        """The next line of the reply."""
        return next(self._lines, None)

    def ended(self) -> tuple[str, int]:
        """The reply's error and code."""
        return self._reply.err, self._reply.code

    def blame(self) -> CommandFailed:
        """The reply's error."""
        return CommandFailed(f"{self._host.name}: it ended with code {self._reply.code}", why=self._reply.err)

    def close(self) -> None:
        """Nothing is to be ended."""
