"""A captured machine answers as the machine would, and says "not known" for what nobody read."""

from shoal.host.snapshot import Reply, Snapshot

PCI = "../../devices/pci0000:00/0000:01:00.0/infiniband/mlx5_0"
REAL = "/sys/devices/pci0000:00/0000:01:00.0"
CAPTURE = Snapshot(
    "gx1",
    files={f"{REAL}/infiniband/mlx5_0/fw_ver": "28.45.4028\n", f"{REAL}/vendor": "0x15b3\n"},
    links={
        "/sys/class/infiniband/mlx5_0": PCI,
        f"{REAL}/infiniband/mlx5_0/device": "../..",
        f"{REAL}/driver": "../../bus/pci/drivers/mlx5_core",
    },
    errors={f"{REAL}/infiniband/mlx5_0/ports/1/gid_attrs/types/7": "EINVAL"},
    replies={"/usr/sbin/ip -j addr show": Reply(0, "[]"), "nvidia-smi -q": Reply(127)},
    looked=("/sys/class/infiniband", "/sys/devices"),
)
MLX = "/sys/class/infiniband/mlx5_0"


def test_files_are_read_through_links() -> None:
    """A path through two symbolic links leads to the file."""
    assert CAPTURE.word(f"{MLX}/fw_ver") == "28.45.4028"
    assert CAPTURE.word(f"{MLX}/device/vendor") == "0x15b3"
    assert CAPTURE.target(f"{MLX}/device/driver") == "mlx5_core"


def test_unreadable_absent_and_unlooked_at_differ() -> None:
    """A file with an error is there; one below a path that was looked at is not; elsewhere nobody knows."""
    slot = f"{MLX}/ports/1/gid_attrs/types/7"
    assert (CAPTURE.error(slot), CAPTURE.read(slot), CAPTURE.exists(slot)) == ("EINVAL", None, True)
    assert CAPTURE.exists("/sys/class/infiniband/mlx5_1") is False
    assert CAPTURE.exists("/etc/rdma") is None


def test_folders_list_what_was_read_below_them() -> None:
    """Names come from files, links and errors alike; an unknown folder is None, an absent one empty."""
    assert CAPTURE.list("/sys/class/infiniband") == ("mlx5_0",)
    assert CAPTURE.list(f"{MLX}/ports/1/gid_attrs") == ("types",)
    assert CAPTURE.list("/sys/class/infiniband/mlx5_9") == ()
    assert CAPTURE.list("/dev/infiniband") is None


def test_commands_are_found_by_program_and_words() -> None:
    """A reply is found wherever the program lies and in whatever order its words stand."""
    assert CAPTURE.reply("nvidia-smi", "-q") == Reply(127)
    assert [reply.out for _, reply in CAPTURE.replies_of("ip", "addr", "-j")] == ["[]"]
    assert list(CAPTURE.replies_of("ip", "route")) == []


def test_a_circle_of_links_ends() -> None:
    """Two links at each other lead nowhere, and do not hang."""
    circle = Snapshot("x", links={"/a": "/b", "/b": "/a"})
    assert circle.read("/a") is None
