"""`shoal push-image` between two machines with a Docker engine each, from the one that has the image."""

import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from tests.docker.machine import Machine, join, machine, own_folder

from shoal.errors import PreconditionFailed
from shoal.host.local import LocalHost
from shoal.host.wrap import WrapHost
from shoal.ops.push import image
from shoal.ops.push.image import Pushed, Wish, push_image
from shoal.ops.push.transfer import Row
from shoal.spec.cluster import parse

IMAGE = "shoal-test:pushed"
STORE = ".local/share/shoal/lab/images"
SPEC = parse(
    f"cluster: lab\nimage: {IMAGE}\nhosts:\n"
    "  - {name: one, fabric: 192.168.142.11}\n  - {name: two, fabric: 192.168.142.12}\n",
    "shoal.yaml",
)


class Watch:
    def note(self, text: str) -> None:
        return

    def moving(self, rows: Sequence[Row]) -> None:
        return


@dataclass(frozen=True)
class Pair:
    """Two machines, and how they are asked."""

    machines: tuple[Machine, Machine]
    cache: str

    @property
    def hosts(self) -> dict[str, WrapHost]:
        return {host.name: _host(host) for host in self.machines}

    def push(self, name: str = "") -> Pushed:
        # This machine has no Docker that answers.
        env = {"SHOAL_CACHE_DIR": self.cache}
        return push_image(Wish(SPEC, name), self.hosts, env, Watch())

    def identity(self, name: str = IMAGE) -> list[str]:
        """The image's id and layers on each."""
        form = "{{.Id}} {{.RootFS.Layers}}"
        return [host.run("docker", "image", "inspect", "--format", form, name).stdout for host in self.machines]

    def left(self) -> list[str]:
        """Saved images, and programs that run on."""
        found = "ls ~/" + STORE + "; cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -o 'docker [sl]o*a[vd][e ]*'"
        return [host.run("sh", "-c", found).stdout for host in self.machines]


def _host(made: Machine) -> WrapHost:
    inside = ("nsenter", "-t", str(made.pid), "--net", "--mount", "--uts", "--ipc", "--pid", "env")
    return WrapHost(
        LocalHost(), (*inside, f"HOME={made.work}", f"DOCKER_HOST=unix://{made.work}/docker.sock"), name=made.name
    )


@pytest.fixture(scope="module")
def pair(tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both up, a cable between them, and an image of two megabytes on the second."""
    with ExitStack() as stack:
        one, two = (
            stack.enter_context(machine(name, address, stack.enter_context(own_folder())))
            for name, address in (("one", "192.168.142.11"), ("two", "192.168.142.12"))
        )
        join(one, two)
        (two.work / "pushed.tar").write_bytes(_root())
        two.ok("docker", "import", "--change", "ENV A=1", str(two.work / "pushed.tar"), IMAGE)
        yield Pair((one, two), str(tmp_path_factory.mktemp("cache")))


def _root() -> bytes:
    out, data = io.BytesIO(), os.urandom(2 << 20)
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo("weights")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def test_an_image_comes_to_the_engine_that_lacks_it(pair: Pair) -> None:
    """The host that has it gives it; both have one id and the same layers then; nothing is saved any more."""
    pair.machines[0].run("docker", "image", "rm", "--force", IMAGE)
    first, again = pair.push(), pair.push()
    assert (first.origin, first.outcome.done, first.outcome.failed, first.layers) == ("two", ("one", "two"), {}, 1)
    assert (again.outcome.done, dict(again.outcome.moved)) == (("one", "two"), {})
    one, two = pair.identity()
    assert (one, first.id in one) == (two, True)
    assert pair.left() == ["", ""]


def test_an_image_of_this_machine_comes_from_here(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's Docker, for which the second one stands, gives it; what was saved for it is removed here too."""
    one, two = pair.machines
    monkeypatch.setattr(image, "LocalHost", lambda: pair.hosts["two"])
    cache = two.work / "cache"
    alone = SPEC.model_copy(update={"hosts": SPEC.hosts[:1]})
    wish, hosts = Wish(alone, IMAGE), {"one": pair.hosts["one"]}
    one.run("docker", "image", "rm", "--force", IMAGE)
    pushed = push_image(wish, hosts, {"SHOAL_CACHE_DIR": str(cache)}, Watch())
    assert (pushed.origin, pushed.outcome.done, pushed.outcome.failed) == ("this machine", ("one",), {})
    assert len(set(pair.identity())) == 1
    assert (list(cache.glob("images/*.tar")), pair.left()) == ([], ["", ""])


def test_an_image_that_nobody_has_and_nobody_can_pull_is_told(pair: Pair) -> None:
    """It names what Docker said on the first host."""
    with pytest.raises(
        PreconditionFailed, match=r"nobody has the image registry\.invalid/x:1, and no host could pull it"
    ):
        pair.push("registry.invalid/x:1")
