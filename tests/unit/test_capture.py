"""A capture is a machine: written and read back it is the same, and a hostile one is refused in a sentence."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest

from shoal.errors import ConfigError
from shoal.host import capture
from shoal.host.snapshot import Reply, Snapshot

TAKEN = Snapshot(
    "gx1",
    files={"/sys/class/net/eth0/mtu": "9000\n", "/etc/hosts": "caf\u00e9"},
    links={"/sys/class/infiniband/mlx5_0": "../../devices/x"},
    errors={"/sys/class/net/eth0/speed": "EINVAL"},
    replies={"uname -r": Reply(0, "6.8.0\n"), "nvidia-smi -q": Reply(127, "", "not found")},
    looked=("/sys/class/net/*/mtu", "/etc/hosts"),
    taken=1700000000.5,
    asked=1700000000.0,
)


@pytest.mark.parametrize("name", ["one.tar", "one.tar.gz", "one.tgz"])
def test_what_was_written_is_read(tmp_path: Path, name: str) -> None:
    """The same snapshot, and the same bytes each time."""
    file = tmp_path / name
    file.write_bytes(capture.compressed(capture.pack(TAKEN, "1.0"), file))
    assert capture.load(file) == (TAKEN,)
    assert capture.compressed(capture.pack(TAKEN, "1.0"), file) == file.read_bytes()


def test_a_folder_made_by_hand(tmp_path: Path) -> None:
    """Files, a link as it is, an empty folder that says "nothing", and replies with or without a code."""
    fs = tmp_path / "gx2/fs/sys/class"
    (fs / "infiniband").mkdir(parents=True)
    (fs / "net/eth0").mkdir(parents=True)
    (fs / "net/eth0/mtu").write_text("1500")
    (fs / "net/eth0/device").symlink_to("../../../devices/0000:01:00.0")
    (tmp_path / "gx2/commands.json").write_text(json.dumps({"uname -r": {"rc": 0, "stdout": "6.8\n"}, "env": "A=1\n"}))
    (taken,) = capture.load(tmp_path / "gx2")
    assert taken == Snapshot(
        "gx2",
        files={"/sys/class/net/eth0/mtu": "1500"},
        links={"/sys/class/net/eth0/device": "../../../devices/0000:01:00.0"},
        replies={"uname -r": Reply(0, "6.8\n"), "env": Reply(0, "A=1\n")},
        looked=("/sys/class/infiniband",),
    )
    assert taken.list("/sys/class/infiniband") == ()
    assert taken.list("/dev/infiniband") is None


def test_a_folder_of_captures_is_several_nodes(tmp_path: Path) -> None:
    """Folders and tars in it, by name; other things are passed over."""
    (tmp_path / "b/fs/etc").mkdir(parents=True)
    (tmp_path / "b/fs/etc/hostname").write_text("b\n")
    (tmp_path / "a.tar").write_bytes(capture.pack(TAKEN, "1.0"))
    (tmp_path / "README.md").write_text("words")
    assert [taken.name for taken in capture.load(tmp_path)] == ["gx1", "b"]


def tar(path: Path, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as out:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return path


def test_a_tar_of_several_folders(tmp_path: Path) -> None:
    """Each folder with fs/ or commands.json is a node."""
    file = tar(tmp_path / "x.tar", ("n1/fs/etc/hostname", b"n1"), ("n2/commands.json", b"{}"), ("notes.txt", b"x"))
    assert [(taken.name, dict(taken.files)) for taken in capture.load(file)] == [
        ("n1", {"/etc/hostname": "n1"}),
        ("n2", {}),
    ]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../fs/x", "it names '../fs/x', which is outside of it"),
        ("fs/../../x", "it names 'fs/../../x', which is outside of it"),
        ("/etc/passwd", "it names '/etc/passwd', which is outside of it"),
        ("notes.txt", "expected fs/ or commands.json in it, or folders and tars that have them"),
    ],
)
def test_a_hostile_or_foreign_tar_is_refused(tmp_path: Path, name: str, said: str) -> None:
    """It is named, and nothing is written."""
    file = tar(tmp_path / "x.tar", (name, b"x"))
    with pytest.raises(ConfigError) as caught:
        capture.load(file)
    assert said in caught.value.why
    assert list(tmp_path.iterdir()) == [file]


def test_links_and_devices_in_a_tar_are_only_told(tmp_path: Path) -> None:
    """A link out of the capture is a link of that machine, and a device is a name."""
    file = tmp_path / "x.tar"
    with tarfile.open(file, "w") as out:
        link, device = tarfile.TarInfo("fs/a"), tarfile.TarInfo("fs/dev/infiniband/uverbs0")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/shadow"
        device.type = tarfile.CHRTYPE
        out.addfile(link)
        out.addfile(device)
    (taken,) = capture.load(file)
    assert (taken.links, taken.files, taken.read("/a")) == (
        {"/a": "/etc/shadow"},
        {"/dev/infiniband/uverbs0": ""},
        None,
    )


def test_a_bomb_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file that unpacks to much is given up at the limit."""
    monkeypatch.setattr(capture, "MAX_TOTAL", 1 << 20)
    file = tmp_path / "x.tar.gz"
    plain = tar(tmp_path / "y.tar", ("fs/a", b"\0" * (3 << 20)))
    file.write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(ConfigError, match="no capture") as caught:
        capture.load(file)
    assert "it holds more than 1 MiB" in caught.value.why


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"not a tar at all", "it cannot be read as a tar"),
        (b"", "it cannot be read as a tar"),
        (b"\x1f\x8bgarbage", "it cannot be read as a tar"),
        (gzip.compress(b"x" * 5000, mtime=0)[:40], "it cannot be read as a tar"),
    ],
)
def test_what_is_no_tar(tmp_path: Path, data: bytes, said: str) -> None:
    """It is said in a sentence."""
    file = tmp_path / "x.tar.gz"
    file.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        capture.load(file)
    assert said in caught.value.why


@pytest.mark.parametrize(
    ("commands", "said"),
    [
        ("[]", "commands.json holds no JSON object"),
        ("{", "commands.json is no JSON"),
        ('{"a": 3}', "commands.json: 'a' holds no reply"),
    ],
)
def test_replies_of_another_form(tmp_path: Path, commands: str, said: str) -> None:
    """The file and the entry are named."""
    (tmp_path / "commands.json").write_text(commands)
    with pytest.raises(ConfigError) as caught:
        capture.load(tmp_path)
    assert said in caught.value.what


def test_what_is_neither_file_nor_folder(tmp_path: Path) -> None:
    """A pipe is refused at once, and not waited for; a folder with too much in it is no machine."""
    import os

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="is no capture"):
        capture.load(tmp_path / "pipe")


def test_a_folder_of_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With more in it than a machine has to tell, it is given up; what lies very deep is passed over."""
    deep = tmp_path / "one/fs"
    for _ in range(80):
        deep = deep / "d"
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    assert capture.load(tmp_path / "one")[0].files == {}
    monkeypatch.setattr(capture, "MAX_ENTRIES", 2)
    for number in range(4):
        (tmp_path / f"one/fs/{number}").write_text("x")
    with pytest.raises(ConfigError, match="is no capture"):
        capture.load(tmp_path / "one")


def test_nothing_there(tmp_path: Path) -> None:
    """A path that does not exist, and a folder without captures."""
    with pytest.raises(ConfigError, match="there is no such file or folder"):
        capture.load(tmp_path / "no")
    with pytest.raises(ConfigError, match="is no capture"):
        capture.load(tmp_path)
