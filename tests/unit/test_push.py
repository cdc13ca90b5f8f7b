"""Pushing models and images: the chain, what is missing, what makes a model whole, what makes two images one."""

import ast
import errno
import hashlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.host.relay_store import Item, Store, Sums, Trouble, scan
from shoal.ops.push.hub import wanted
from shoal.ops.push.party import MODULES, program
from shoal.plan.push import lacking, missing, order, same_image, sending_order, upstreams

Told = list[tuple[str, dict[str, Any]]]
DATA = bytes(range(256)) * 5000  # more than one piece of a megabyte


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
def opened(tmp_path: Path, told: Told) -> Iterator[Callable[..., Store]]:
    """A store below the test's folder that looks for some files; the one before is closed, as when its relay ends."""
    stores: list[Store] = []

    def make(*files: tuple[str, bytes]) -> Store:
        for before in stores:
            before.close()
        store = Store(str(tmp_path / "store"), "me", lambda what, **more: told.append((what, more)))
        stores.append(store)
        store.look([(path, len(data), sha256(data)) for path, data in files], anew=False)
        return store

    yield make
    for store in stores:
        store.close()


# The chain.


def test_who_has_more_stands_first() -> None:
    """The chain is sorted by what hosts hold, else as in the cluster file."""
    assert order({"a": 0, "b": 7, "c": 0, "d": 9}) == ("d", "b", "a", "c")


def test_each_takes_from_the_one_before() -> None:
    """The first takes from this machine, each other from the one before it."""
    assert upstreams(("a", "b", "c"), set(), chair=True) == {"a": "", "b": "a", "c": "b"}


def test_a_host_that_has_it_spares_this_machine() -> None:
    """Where a host has all, the others take from it or one another, and this machine gives nothing."""
    assert upstreams(("a", "b", "c"), {"a"}, chair=True) == {"b": "a", "c": "b"}


def test_without_anybody_who_has_it_nobody_waits() -> None:
    """Where neither a host nor this machine has all, everybody is told so."""
    assert upstreams(("a", "b"), set(), chair=False) == {"a": None, "b": None}


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=8), st.booleans())
def test_whoever_falls_out_everybody_is_served_without_a_circle(hosts: list[tuple[bool, bool]], chair: bool) -> None:
    """Whatever hosts are left and whole, following the givers leads from each to one who has all."""
    chain = [str(index) for index, (alive, _) in enumerate(hosts) if alive]
    whole = {str(index) for index, (_, has) in enumerate(hosts) if has} & set(chain)
    givers = upstreams(chain, whole, chair=chair)
    assert set(givers) == set(chain) - whole
    for name in givers:
        at, steps = name, 0
        while at in givers and (giver := givers[at]) is not None:
            at, steps = giver, steps + 1
            assert steps <= len(chain)
        assert at in whole or (at == "" and chair) or not (whole or chair)


def test_what_is_missing_is_what_was_not_taken_yet() -> None:
    """A whole file lacks nothing, a part its rest, and a part that is too long nothing."""
    found = [missing(size, part, have=have) for size, have, part in ((10, True, 0), (10, False, 4), (10, False, 12))]
    assert found == [0, 6, 0]


def test_what_makes_a_folder_a_model_comes_last() -> None:
    """Weights go first, then config.json, and the ref that names the snapshot after it."""
    files = ["h/refs/main", "h/snapshots/1/config.json", "h/snapshots/1/b.safetensors", "h/snapshots/1/a.safetensors"]
    assert sorted(files, key=sending_order) == [files[3], files[2], files[1], files[0]]


# A whole model.

INDEX = json.dumps(
    {"metadata": {"total_size": 30}, "weight_map": {"x": "1.safetensors", "y": "2.safetensors"}}
).encode()
WHOLE = {"config.json": 2, "tokenizer.json": 2, "1.safetensors": 20, "2.safetensors": 20}


@pytest.mark.parametrize(
    ("sizes", "index", "problems"),
    [
        (WHOLE, INDEX, ()),
        (WHOLE, None, ()),
        ({"config.json": 2, "tokenizer.json": 2}, None, ("no weights: expected *.safetensors",)),
        (
            {"1.safetensors": 20, "2.safetensors": 20},
            INDEX,
            ("config.json is missing", "no tokenizer file such as tokenizer.json"),
        ),
        (
            {key: size for key, size in WHOLE.items() if key != "2.safetensors"},
            INDEX,
            ("model.safetensors.index.json names files that are absent: 2.safetensors",),
        ),
        (
            WHOLE | {"1.safetensors": 5},
            INDEX,
            ("the weights are 25 bytes, model.safetensors.index.json says 30",),
        ),
        (WHOLE, b"", ("model.safetensors.index.json is empty",)),
        (WHOLE, b"{}", ("model.safetensors.index.json has no weight_map from tensors to files",)),
    ],
)  # fmt: skip
def test_a_model_is_whole_by_its_index(sizes: dict[str, int], index: bytes | None, problems: tuple[str, ...]) -> None:
    """What its index names is there, and is as large as it says; else it is told what is not."""
    assert lacking(sizes, index) == problems


def test_of_the_hub_comes_what_vllm_loads() -> None:
    """Pickled weights come only where there are no others; pictures, other forms and paths outside never."""
    names = ["model.safetensors", "pytorch_model.bin", "config.json", "README.md", "original/consolidated.00.pth",
             "x.gguf", "../evil", ".gitattributes", "tokenizer.model", "chat_template.jinja", "merges.txt"]  # fmt: skip
    files = [{"rfilename": name} for name in names]
    kept = ["model.safetensors", "config.json", "tokenizer.model", "chat_template.jinja", "merges.txt"]
    assert [name for name in names if wanted(name, files)] == kept
    assert wanted("pytorch_model.bin", files[1:])


# One image or two.

IMAGE = {
    "Id": "sha256:1",
    "Created": "2025-09-01T00:00:00Z",
    "Os": "linux",
    "Architecture": "arm64",
    "RootFS": {"Type": "layers", "Layers": ["sha256:a", "sha256:b"]},
    "Config": {"Env": ["A=1"], "Cmd": ["sh"], "Hostname": ""},
}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"Id": "sha256:2", "Config": {"Env": ["A=1"], "Cmd": ["sh"], "Volumes": None}}, True),
        ({"Id": "sha256:2", "RootFS": {"Layers": ["sha256:a"]}}, False),
        ({"Id": "sha256:2", "Config": {"Env": ["A=2"], "Cmd": ["sh"]}}, False),
        ({"Id": "sha256:2", "Created": "2025-09-02T00:00:00Z"}, False),
        ({"Id": "sha256:2", "Architecture": "amd64"}, False),
    ],
)
def test_an_image_is_the_same_by_id_or_by_all_that_is_in_it(change: dict[str, Any], same: bool) -> None:
    """Two stores give one image two ids; its layers, time, machine and program decide then."""
    assert same_image(IMAGE, IMAGE | change) is same


# What runs on the hosts.


@pytest.mark.parametrize("name", MODULES)
def test_what_is_sent_is_read_by_the_oldest_python(name: str) -> None:
    """Hosts may have Python 3.6: no newer syntax, and nothing but the standard library and itself."""
    source = dict(json.loads(program()))[name]
    tree = ast.parse(source, feature_version=(3, 6))
    modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {item.name for node in ast.walk(tree) if isinstance(node, ast.Import) for item in node.names}
    assert {module for module in modules if module.partition(".")[0] not in sys.stdlib_module_names} <= set(MODULES)


# Files that arrive.


def test_a_file_has_its_name_when_it_is_whole(opened: Callable[..., Store], told: Told) -> None:
    """Until its last byte it is a part elsewhere; then it is there, and said to be."""
    store = opened(("m/a", DATA))
    item = store.items[0]
    store.put(0, 0, DATA[:100])
    assert (item.got, Path(item.final).exists(), Path(item.part).stat().st_size) == (100, False, 100)
    store.put(0, 100, DATA[100:])
    assert (Path(item.final).read_bytes(), Path(item.part).exists(), told) == (DATA, False, [("have", {"file": 0})])


def test_a_torn_copy_goes_on_where_it_stood(opened: Callable[..., Store]) -> None:
    """Who comes next finds the part, and takes the rest alone."""
    opened(("m/a", DATA)).put(0, 0, DATA[:70_000])
    store = opened(("m/a", DATA))
    assert (store.items[0].got, store.begin(store.items[0])) == (70_000, 70_000)
    store.put(0, 70_000, DATA[70_000:])
    assert Path(store.items[0].final).read_bytes() == DATA


def test_a_piece_out_of_step_is_not_taken(opened: Callable[..., Store]) -> None:
    """What belongs to a try that was given up changes nothing."""
    store = opened(("m/a", DATA))
    store.put(0, 0, DATA[:100])
    store.put(0, 50, DATA[50:])
    store.put(0, 200, DATA[200:])
    assert store.items[0].got == 100


def test_a_wrong_checksum_is_taken_anew_once(opened: Callable[..., Store], told: Told) -> None:
    """The first time the part is thrown away; the second time it is an error that names the file."""
    store, wrong = opened(("m/a", DATA)), bytes(len(DATA))
    store.put(0, 0, wrong)
    item = store.items[0]
    left = [Path(path).exists() for path in (item.part, item.final)]
    assert (told, item.got, left) == ([("again", {"file": 0})], 0, [False, False])
    with pytest.raises(Trouble, match=r"m/a came 2 times with a wrong checksum"):
        store.put(0, 0, wrong)
    assert not Path(item.final).exists()


def test_a_full_disk_is_not_left_full(opened: Callable[..., Store]) -> None:
    """Where no byte fits any more, the part goes, and the error is the system's."""

    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    store = opened(("m/a", DATA))
    store.put(0, 0, DATA[:100])
    item = store.items[0]
    item.file.close()
    item.file = Full()
    with pytest.raises(OSError, match="No space left"):
        store.put(0, 100, DATA[100:])
    assert (Path(item.part).exists(), Path(item.final).exists()) == (False, False)


def test_what_is_there_is_not_taken(opened: Callable[..., Store], tmp_path: Path) -> None:
    """A file with the right digest is there; one of the same size with another is not."""
    for name, data in (("a", DATA), ("b", bytes(len(DATA)))):
        (tmp_path / "store/m").mkdir(parents=True, exist_ok=True)
        (tmp_path / "store/m" / name).write_bytes(data)
    assert [item.have for item in opened(("m/a", DATA), ("m/b", DATA), ("m/c", b"")).items] == [True, False, False]


def test_an_empty_file_and_twins_arrive_too(opened: Callable[..., Store]) -> None:
    """No bytes are a file as well, and two files may have the same ones."""
    store = opened(("m/a", b""), ("m/b", DATA), ("m/c", DATA))
    for index, data in enumerate((b"", DATA, DATA)):
        store.put(index, 0, data)
    assert [Path(item.final).read_bytes() for item in store.items] == [b"", DATA, DATA]


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x"])
def test_no_file_lies_outside_of_the_store(path: str) -> None:
    """A path that leads out of the store is refused."""
    with pytest.raises(Trouble, match="no path below the store"):
        Item(0, "/nowhere", path, 1, "ab")


def test_two_pushes_do_not_meet_in_one_store(opened: Callable[..., Store], tmp_path: Path) -> None:
    """The second is refused, and told who the first is and since when."""
    opened(("m/a", DATA))
    with pytest.raises(Trouble, match=r"another push is at work there: me, since \d\d:\d\d:\d\d"):
        Store(str(tmp_path / "store"), "somebody else", lambda *_, **__: None)


def test_checksums_are_remembered_of_what_nobody_touched(tmp_path: Path) -> None:
    """A file that was not touched is not read again; one that was is, whatever its size and time say."""
    file, sums = tmp_path / "a", Sums(str(tmp_path / "sums.json"))
    file.write_bytes(b"one")
    first = sums.of(str(file))
    sums.save()
    again = Sums(str(tmp_path / "sums.json"))
    before = file.stat()
    assert (first, again.of(str(file))) == (sha256(b"one"), sha256(b"one"))
    file.write_bytes(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert again.of(str(file)) == sha256(b"two")


def test_files_of_a_folder_are_found_through_links(tmp_path: Path) -> None:
    """As the hub's client keeps them; what begins with a dot is left out."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs/1").write_bytes(b"x")
    (tmp_path / "snapshots/c/.cache").mkdir(parents=True)
    (tmp_path / "snapshots/c/.cache/y").write_bytes(b"y")
    (tmp_path / "snapshots/c/a").symlink_to("../../blobs/1")
    found = scan(str(tmp_path), ["snapshots"], Sums(str(tmp_path / "sums.json")))
    assert found == [("snapshots/c/a", 1, sha256(b"x"))]
