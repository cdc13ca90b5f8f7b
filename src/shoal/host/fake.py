"""A machine made of a dict: files and replies. Shipped, so that users of the package test without a machine too."""

from collections.abc import Container, Mapping, Sequence
from pathlib import PurePosixPath

from shoal.errors import HostUnreachable
from shoal.host.base import Result


class FakeHost:
    """Answers from ``tree`` (path -> text) and ``replies`` (argv as one line -> Result, or its output).

    Raises:
        HostUnreachable: on every call, where ``reachable`` is False.
    """

    def __init__(
        self,
        tree: Mapping[str, str] | None = None,
        replies: Mapping[str, Result | str] | None = None,
        *,
        name: str = "fake",
        reachable: bool = True,
    ) -> None:
        self.name = name
        self.tree = dict(tree or {})
        self.replies = dict(replies or {})
        self.reachable = reachable
        self.calls: list[tuple[str, ...]] = []

    def _connect(self) -> None:
        if not self.reachable:
            raise HostUnreachable(f"{self.name} does not answer")

    def run(self, argv: Sequence[str], *, timeout: float, ok: Container[int] = (0,)) -> Result:
        """Reply as told; 127 for a command that nobody told about. ``timeout`` never passes here."""
        del timeout
        self._connect()
        argv = tuple(argv)
        self.calls.append(argv)
        reply = self.replies.get(" ".join(argv), Result(argv, 127, "", f"{argv[0]}: not found"))
        result = Result(argv, 0, reply, "") if isinstance(reply, str) else reply
        return result.require(ok, self.name)

    def read(self, path: str) -> str | None:
        """Text from the tree, or None."""
        self._connect()
        return self.tree.get(path)

    def list(self, path: str) -> tuple[str, ...]:
        """Names under a path of the tree."""
        self._connect()
        base = PurePosixPath(path)
        below = (PurePosixPath(name) for name in self.tree)
        return tuple(sorted({name.relative_to(base).parts[0] for name in below if base in name.parents}))

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """Put text into the tree; modes are not kept."""
        del mode
        self._connect()
        self.tree[path] = text
