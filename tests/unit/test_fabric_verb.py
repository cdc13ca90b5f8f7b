"""``shoal fabric``: captures in, a page or a document out."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from shoal.errors import ConfigError, HostUnreachable, UsageError
from shoal.facts.node import NodeFacts
from shoal.facts.stack import StackFacts
from shoal.host.fake import FakeHost
from shoal.ops import fabric as ops
from shoal.ops.fabric import parse_nccl, version_of
from shoal.ui.cli import main
from shoal.ui.verbs.fabric import verb

# A command keeps the help option of its first call: another test reads the help page of this verb.
HELP = ["-h", "--help"]

FE80 = "fe80:0000:0000:0000:0000:0000:0000:0001"
EXPECTED = (
    "device",
    "port",
    "state",
    "link_layer",
    "rate_gbps",
    "netdev",
    "mtu",
    "ipv4",
    "gid_index",
    "gid_type",
    "usable",
    "why",
)


def capture(folder: Path, number: int, *, nccl: str = "", env: str = "") -> Path:
    """A partial capture of a node with one RoCE HCA, as somebody might make it by hand."""
    port = "sys/class/infiniband/mlx5_0/ports/1"
    ip = f"0000:0000:0000:0000:0000:ffff:c0a8:64{number:02x}"
    files = {
        f"{port}/state": "4: ACTIVE",
        f"{port}/phys_state": "5: LinkUp",
        f"{port}/link_layer": "Ethernet",
        f"{port}/rate": "200 Gb/sec (4X HDR)",
        "sys/class/net/eth1/mtu": "9000",
        "sys/class/net/eth1/operstate": "up",
    }
    for slot, (gid, kind) in enumerate([(FE80, "IB/RoCE v1"), (FE80, "RoCE v2"), (ip, "IB/RoCE v1"), (ip, "RoCE v2")]):
        files |= {
            f"{port}/gids/{slot}": gid,
            f"{port}/gid_attrs/types/{slot}": kind,
            f"{port}/gid_attrs/ndevs/{slot}": "eth1",
        }
    for name, text in files.items():
        file = folder / "fs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n", encoding="utf-8")
    address = {"family": "inet", "local": f"192.168.100.{number}", "prefixlen": 24}
    commands = {"ip -j addr": json.dumps([{"ifname": "eth1", "addr_info": [address]}])}
    commands |= {"pip list": f"nvidia-nccl-cu12 {nccl}"} if nccl else {}
    commands |= {"env": env} if env else {}
    replies = {line: {"rc": 0, "stdout": text, "stderr": ""} for line, text in commands.items()}
    (folder / "commands.json").write_text(json.dumps(replies), encoding="utf-8")
    return folder


def told(*args: str) -> dict[str, object]:
    """The document of these arguments."""
    done = CliRunner().invoke(verb, [*args, "--json"], help_option_names=HELP)
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))


def test_a_document_for_two_captures(tmp_path: Path) -> None:
    """Several captures are several nodes, in the order of the call."""
    paths = [capture(tmp_path / name, number) for number, name in enumerate(("one", "two"), 1)]
    document = told(*(word for path in paths for word in ("--from", str(path))), "--nccl", "2.27.3")
    nodes = document["nodes"]
    assert isinstance(nodes, list)
    assert (document["topology"], [node["name"] for node in nodes]) == ("pair", ["one", "two"])
    row = nodes[0]["hcas"][0]
    assert [row[name] for name in EXPECTED] == [
        "mlx5_0",
        1,
        "ACTIVE",
        "Ethernet",
        200,
        "eth1",
        9000,
        "192.168.100.1",
        3,
        "RoCE v2",
        True,
        "the first RoCE v2 slot with an IPv4 address: RoCE v2, 192.168.100.1",
    ]
    settings = {item["name"]: item["value"] for item in nodes[0]["settings"]}
    assert (settings["NCCL_IB_HCA"], settings["NCCL_SOCKET_IFNAME"]) == ("=mlx5_0", "=eth1")


@pytest.mark.parametrize(
    ("args", "env", "index"),
    [
        ((), "", 3),
        (("--nccl", "2.20.5"), "", 0),
        (("--nccl", "v2.21.5-1"), "", 3),
        ((), "NCCL_IB_GID_INDEX=1", 1),
        ((), "NCCL_NET_PLUGIN=ofi", None),
    ],
)
def test_what_nccl_uses(tmp_path: Path, args: tuple[str, ...], env: str, index: int | None) -> None:
    """Version and environment decide the slot."""
    document = told("--from", str(capture(tmp_path / "n", 1, env=env)), *args)
    nodes = document["nodes"]
    assert isinstance(nodes, list)
    assert nodes[0]["hcas"][0]["gid_index"] == index


def test_an_environment_file(tmp_path: Path) -> None:
    """A .env counts as the environment in force, over what was captured."""
    file = tmp_path / ".env"
    file.write_text("NCCL_IB_GID_INDEX=2\n", encoding="utf-8")
    document = told("--from", str(capture(tmp_path / "n", 1, env="NCCL_IB_GID_INDEX=1")), "--env", str(file))
    nodes = document["nodes"]
    assert isinstance(nodes, list)
    assert nodes[0]["hcas"][0]["gid_index"] == 2


def test_the_page(tmp_path: Path) -> None:
    """The page has a line for each HCA, and each setting with its reason."""
    path = capture(tmp_path / "one", 1, nccl="2.27.3")
    done = CliRunner().invoke(verb, ["--from", str(path)], help_option_names=HELP)
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "NCCL 2.27.3 (found on one)",
        "fabric: single, one node",
        "",
        "one",
        "  HCA     state   link  Gb/s  interface  MTU   IPv4           GID  use",
        "  mlx5_0  ACTIVE  RoCE  200   eth1       9000  192.168.100.1  3    yes",
        "  mlx5_0: the first RoCE v2 slot with an IPv4 address: RoCE v2, 192.168.100.1",
        "  settings",
        "    NCCL_IB_HCA==mlx5_0",
        "      1 RoCE port(s) on 1 rail(s), by their exact names; undo: remove NCCL_IB_HCA",
        "    NCCL_SOCKET_IFNAME==eth1",
        "      the bootstrap: this node's first network, 192.168.100.0/24; undo: remove NCCL_SOCKET_IFNAME",
        "    GLOO_SOCKET_IFNAME=eth1",
        (
            "      Gloo, which vLLM's ranks meet over: the same interface, as a plain name; "
            "undo: remove GLOO_SOCKET_IFNAME"
        ),
        "    TP_SOCKET_IFNAME=eth1",
        "      TensorPipe: the same interface, as a plain name; undo: remove TP_SOCKET_IFNAME",
        "    UCX_NET_DEVICES=eth1",
        "      UCX: the same interface, as a plain name; undo: remove UCX_NET_DEVICES",
    ]


@pytest.mark.parametrize("text", ["foo", "2", "1.9", "3.0", "2.9.1", "", "2.27.x", "-1"])
def test_a_version_that_is_none(text: str) -> None:
    """Rubbish is refused with the form that is expected."""
    with pytest.raises(UsageError, match=r"expected a version of NCCL, 2.10 or newer, such as 2.27.3"):
        parse_nccl(text)


def test_rubbish_on_the_command_line() -> None:
    """The command line ends with code 2, and no traceback."""
    done = CliRunner().invoke(main, ["fabric", "--nccl", "two"])
    assert (done.exit_code, "expected a version of NCCL" in done.stderr) == (2, True)


def test_a_capture_that_is_none(tmp_path: Path) -> None:
    """A folder that is no capture is refused by name."""
    with pytest.raises(ConfigError, match="nothing"):
        ops.fabric([], [tmp_path / "nothing"])


def with_nccl(name: str, version: str | None) -> NodeFacts:
    """A node that has this NCCL."""
    return NodeFacts(name, stack=StackFacts(nccl=version))


@pytest.mark.parametrize(
    ("nodes", "version", "source"),
    [
        (
            [],
            (2, 32),
            "the newest that is known: no node says which NCCL it has; --nccl VERSION tells",
        ),
        (
            [with_nccl("a", None), with_nccl("b", "rubbish")],
            (2, 32),
            "the newest that is known: no node says which NCCL it has; --nccl VERSION tells",
        ),
        ([with_nccl("a", "2.28.3-1")], (2, 28, 3), "found on a"),
        ([with_nccl("a", "2.28.3"), with_nccl("b", "2.28.3")], (2, 28, 3), "found on all 2 nodes"),
        ([with_nccl("a", "2.28.3"), with_nccl("b", None)], (2, 28, 3), "found on a"),
        (
            [with_nccl("a", "2.28.3"), with_nccl("b", "2.27.7")],
            (2, 27, 7),
            "the oldest: a has 2.28.3, b has 2.27.7; NCCL must be the same everywhere",
        ),
    ],
)
def test_where_the_version_is_from(nodes: list[NodeFacts], version: tuple[int, ...], source: str) -> None:
    """The version is the one that was found, the oldest of several, else the newest that is known; in words too."""
    assert version_of(nodes) == (version, source)


def test_a_host_that_cannot_be_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The others are planned, the host is named, and the exit code is 3; alone, it is the error."""
    nobody = FakeHost(name="node-9", reachable=False)
    monkeypatch.setattr("shoal.ui.verbs.fabric.hosts_named", lambda names: (nobody,))
    done = CliRunner().invoke(
        verb, ["node-9", "--from", str(capture(tmp_path / "n", 1)), "--json"], help_option_names=HELP
    )
    document = json.loads(done.stdout)
    assert (done.exit_code, document["unreachable"], len(document["nodes"])) == (
        3,
        {"node-9": "node-9 does not answer"},
        1,
    )
    with pytest.raises(HostUnreachable):
        ops.fabric([nobody], [])
