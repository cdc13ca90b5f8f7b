"""`shoal env check`: what it says of a file, line by line, and what it lets pass."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from shoal.checks.env_check import check
from shoal.checks.env_remarks import Remark, Role
from shoal.log import MASK
from shoal.nccl.variables import Version
from shoal.spec.env_table import VARIABLES
from shoal.ui.cli import main

REFERENCE = """\
NCCL_IB_HCA=roceP2p1s0f0
NCCL_SOCKET_IFNAME=enP2p1s0f0np0
NCCL_IB_GID_INDEX=0
NCCL_NET_GDR_LEVEL=5
NCCL_IB_TC=106
NCCL_IB_SL=3
NCCL_IB_TIMEOUT=23
NCCL_IB_RETRY_CNT=7
NCCL_TIMEOUT=60
NCCL_CROSS_NIC=0
"""
WORKER = "RAY_MODE=worker\nVLLM_HOST_IP=10.0.0.2\nRAY_ADDRESS=10.0.0.1:6379\n"
REFERENCE_PAGE = """\
.env:3: WARN NCCL_IB_GID_INDEX=0: pinned: slots differ between nodes and move when addresses change; slot 0 is RoCE v1 \
on most cards. NCCL 2.21 and newer find the RoCE v2 slot itself
    fix: remove it, unless NCCL is older
.env:5: INFO NCCL_IB_TC=106: 106 is DSCP 26 with ECN bits 10; the same on every node, and DSCP 26 lossless on every \
switch
.env:6: WARN NCCL_IB_SL=3: on RoCE it is the 802.1p priority, which only a packet with a VLAN tag carries; \
enP2p1s0f0np0 is no VLAN
    fix: remove it, NCCL_IB_TC sets the priority; or use a VLAN interface
.env:9: WARN NCCL_TIMEOUT=60: not an NCCL variable: nothing reads it: the time limit of a collective is torch's, not \
NCCL's
    fix: remove it
.env: 3 WARN, 1 INFO
"""


def said(text: str, role: Role | None = None, nccl: Version | None = None) -> list[tuple[int, str, str]]:
    """Line, severity and variable of each remark."""
    return [(item.line, str(item.severity), item.variable) for item in check(text, role=role, nccl=nccl)]


def shoal(*words: str) -> Result:
    result = CliRunner().invoke(main, ["env", "check", *words], prog_name="shoal")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_settings_of_the_original_deployment(folder: Path) -> None:
    """It names the pinned GID, the level without VLAN and the invented variable, explains 106, and no more."""
    (folder / ".env").write_text(REFERENCE)
    result = shoal(".env")
    assert (result.exit_code, result.stdout, result.stderr) == (1, REFERENCE_PAGE, "")


def test_the_same_as_a_document(folder: Path, golden: Callable[[str, object], None]) -> None:
    """`--json` gives the same findings as one document."""
    (folder / ".env").write_text(REFERENCE)
    result = shoal(".env", "--json", "--nccl", "v2.27.3-1")
    assert result.exit_code == 1
    golden("env_check.json", json.loads(result.stdout))


def test_a_right_file_has_nothing_to_say(folder: Path) -> None:
    """A whole file of a worker, well written, gets one line and exit code 0; remarks to know do not change that."""
    text = WORKER + "NCCL_IB_HCA==mlx5_1,mlx5_2:1\nNCCL_SOCKET_IFNAME=eth0.100\nNCCL_IB_SL=3\nNCCL_DEBUG=info\n"
    (folder / ".env").write_text(text)
    assert (shoal(".env").exit_code, shoal(".env").stdout) == (0, ".env: nothing to say\n")
    (folder / ".env").write_text(text + "NCCL_IB_TC=106\n")
    assert shoal(".env", "--role", "worker").exit_code == 0


@pytest.mark.parametrize("words", [("absent",), (".",), (".env", "--nccl", "new"), (".env", "--nccl", "2.17"),
                                   (".env", "--role", "wroker"), ()])  # fmt: skip
def test_a_wrong_call(folder: Path, words: tuple[str, ...]) -> None:
    """What cannot be read or understood ends with exit code 2."""
    (folder / ".env").write_text(REFERENCE)
    assert shoal(*words).exit_code == 2


LINES = {
    "NCCL_IB_GDR_DMABUF_ENABLE=1": ["WARN"],
    "NCCL_BLOCKING_WAIT=1": ["WARN"],
    "NCCL_IB_GIDINDEX=3": ["FAIL"],
    "NCCL_SOMETHING_ELSE_ENTIRELY=3": ["WARN"],
    "NCCL_VERSION=2.27.3": [],
    "NCCL_IBEXT_DISABLE=1": [],
    "NCCL_RUN_DIAGNOSTICS=1": [],
    "NCCL_IB_DISABLE=true": ["FAIL"],
    "NCCL_IB_DISABLE=2": ["FAIL"],
    "NCCL_IB_DISABLE=auto": [],
    "NCCL_IB_DISABLE=": [],
    "NCCL_IB_TC=0x6a": ["INFO"],
    "NCCL_IB_TC=300": ["FAIL"],
    "NCCL_IB_TC=104": ["WARN"],
    "NCCL_IB_TC=107": ["WARN"],
    "NCCL_IB_TC=auto": ["FAIL"],
    "NCCL_IB_TIMEOUT=023": ["WARN"],
    "NCCL_IB_TIMEOUT=32": ["FAIL"],
    "NCCL_IB_TIMEOUT=14": ["WARN"],
    "NCCL_IB_TIMEOUT=23#x": ["FAIL"],
    "NCCL_IB_RETRY_CNT=8": ["FAIL"],
    "NCCL_IB_SL=3": ["INFO"],
    "NCCL_IB_SL=16": ["FAIL"],
    "NCCL_BUFFSIZE=4M": ["FAIL"],
    "NCCL_DEBUG=verbose": ["FAIL"],
    "NCCL_DEBUG=info": [],
    "NCCL_NET_GDR_LEVEL=phb": ["FAIL"],
    "NCCL_NET_GDR_LEVEL=PHB": [],
    "NCCL_NET_GDR_LEVEL=0": ["WARN"],
    "NCCL_IB_HCA=mlx5_1": ["WARN"],
    "NCCL_IB_HCA=^mlx5_1": ["WARN"],
    "NCCL_IB_HCA==mlx5_1": [],
    "NCCL_IB_HCA=mlx5_0": [],
    "NCCL_IB_HCA=mlx5_10": [],
    "NCCL_IB_HCA==^mlx5_1": ["FAIL"],
    "NCCL_IB_HCA=enp1s0f0np0": ["FAIL"],
    "NCCL_SOCKET_IFNAME=10.0.0.1": ["FAIL"],
    "NCCL_SOCKET_IFNAME=mlx5_0": ["FAIL"],
    "NCCL_IB_GID_INDEX=3": ["WARN"],
    "NCCL_IB_GID_INDEX=-1": [],
    "NCCL_P2P_DISABLE=1": ["WARN"],
    "NCCL_ALGO=Ring": ["WARN"],
    # Read by others than NCCL.
    "SHOAL_NUM_GPU=1": ["FAIL"],
    "SHOAL_NUM_GPUS=all": ["FAIL"],
    "SHOAL_LOG=xml": ["FAIL"],
    "SHOAL_EXPECT=10.0.0.1:2, 10.0.0.2": [],
    "SHOAL_EXPECT=gpu-1": ["FAIL"],
    "RAY_MODE=wroker": ["FAIL"],
    "RAY_ADDRESS=10.0.0.1": ["FAIL"],
    "RAY_ADDRESS=ray://10.0.0.1:10001": ["FAIL"],
    "RAY_ADRESS=10.0.0.1:6379": ["WARN"],
    "RAY_AUTH_TOKEN=t": ["FAIL"],
    "HF_HUB_OFFLINE=True": [],
    "HF_HUB_OFFLINE=maybe": ["WARN"],
    "MASTER_ADDR=10.0.0.1": ["INFO"],
    "CUDA_VISIBLE_DEVICES=": ["WARN"],
    "CUDA_VISIBLE_DEVICES=''": ["WARN", "INFO"],
    "CUDA_VISIBLE_DEVICES=all": ["FAIL"],
    "CUDA_VISIBLE_DEVICES=0,1": [],
    "CUDA_VISIBLE_DEVICES=GPU-8a1b, GPU-9c": [],
    "GLOO_SOCKET_IFNAME==eth0": ["FAIL"],
    "VLLM_RAY_WORKER_ENV_VARS=A": ["WARN"],
    "VLLM_RAY_WORKER_ENV_VARS=A B": ["FAIL"],
    "A": ["INFO"],
    "A='b'": ["INFO"],
    "A=“b”": ["WARN"],
    "A=b\t# c": ["WARN"],
    "A=$B": ["WARN"],
    "A=b # c": [],
    "A='b": ["FAIL"],
    "PATH=/bin": [],
}


@pytest.mark.parametrize("line", LINES)
def test_a_line(line: str) -> None:
    """Each line alone gets what it deserves, at its own number."""
    remarks = check(f"# a comment\n{line}\n")
    assert sorted((item.line, str(item.severity)) for item in remarks) == sorted((2, word) for word in LINES[line])


FILES: dict[str, list[tuple[int, str, str]]] = {
    "NCCL_IB_DISABLE=1\nNCCL_IB_HCA=mlx5_0": [(1, "WARN", "NCCL_IB_DISABLE")],
    "NCCL_IB_DISABLE=1\nNCCL_NET=IB": [(2, "FAIL", "NCCL_NET")],
    "NCCL_NET=Socket\nNCCL_IB_HCA=mlx5_0": [(1, "WARN", "NCCL_NET")],
    "NCCL_NET_PLUGIN=/x.so\nNCCL_IB_HCA=mlx5_0": [(1, "INFO", "NCCL_NET_PLUGIN")],
    "NCCL_NET_PLUGIN=/x.so\nNCCL_IB_DISABLE=1": [(2, "WARN", "NCCL_IB_DISABLE")],
    "NCCL_NET_PLUGIN=none\nNCCL_IB_HCA=mlx5_0": [],
    "NCCL_SOCKET_IFNAME=eth0\nGLOO_SOCKET_IFNAME=eth1": [(2, "WARN", "GLOO_SOCKET_IFNAME")],
    "NCCL_SOCKET_IFNAME==eth0\nGLOO_SOCKET_IFNAME=eth0": [],
    "NCCL_IB_HCA=roce0\nNCCL_SOCKET_IFNAME=vlan100\nNCCL_IB_SL=3": [],
    "NCCL_IB_HCA=ibp12s0\nNCCL_IB_SL=3": [],
    "NCCL_DEBUG=INFO\nVLLM_RAY_WORKER_ENV_VARS=NCCL_DEBUG": [],
    "A=1\nA=2": [(1, "WARN", "A")],
    "A=1\nA=1": [(1, "INFO", "A")],
    "A=1\r\nB=2\r\n": [(1, "WARN", "")],
    "VLLM_HOST_IP=10.0.0.2": [(0, "FAIL", "RAY_MODE")],
    "RAY_MODE=worker": [(0, "FAIL", "VLLM_HOST_IP"), (0, "FAIL", "RAY_ADDRESS")],
    "RAY_MODE=head": [(0, "FAIL", "VLLM_HOST_IP")],
    "RAY_MODE=head\nVLLM_HOST_IP": [(2, "INFO", "VLLM_HOST_IP")],
    "RAY_MODE=head\nVLLM_HOST_IP=10.0.0.1\nRAY_ADDRESS=10.0.0.1:6379": [],
    "RAY_MODE=head\nVLLM_HOST_IP=10.0.0.1\nRAY_ADDRESS=10.0.0.9:6379": [(3, "FAIL", "RAY_ADDRESS")],
    "RAY_MODE=worker\nVLLM_HOST_IP=10.0.0.1\nRAY_ADDRESS=10.0.0.1:6379": [(3, "FAIL", "RAY_ADDRESS")],
    "RAY_MODE=worker\nVLLM_HOST_IP=10.0.0.1\nRAY_ADDRESS=127.0.0.1:6379": [(3, "FAIL", "RAY_ADDRESS")],
    "RAY_MODE=worker\nVLLM_HOST_IP=127.0.0.2\nRAY_ADDRESS=127.0.0.1:6379": [],
    "RAY_MODE=worker\nVLLM_HOST_IP=0.0.0.0\nRAY_ADDRESS=10.0.0.1:6379": [(2, "FAIL", "VLLM_HOST_IP")],
}


@pytest.mark.parametrize("text", FILES)
def test_a_file(text: str) -> None:
    """Lines that contradict each other, or miss each other, are told where it is to be mended."""
    assert said(text) == FILES[text]


def test_the_role_that_is_asked_for() -> None:
    """With a role the file must be that node's."""
    assert said(WORKER, role="head") == [(1, "FAIL", "RAY_MODE"), (3, "FAIL", "RAY_ADDRESS")]
    assert said("A=1", role="worker") == [
        (0, "FAIL", "RAY_MODE"),
        (0, "FAIL", "VLLM_HOST_IP"),
        (0, "FAIL", "RAY_ADDRESS"),
    ]


@pytest.mark.parametrize(
    ("line", "version", "found"),
    [
        ("NCCL_IB_GID_INDEX=3", (2, 20, 5), []),
        ("NCCL_IB_GID_INDEX=3", (2, 21, 5), ["WARN"]),
        ("NCCL_IB_ADDR_RANGE=10.0.0.0/24", (2, 20, 5), ["WARN"]),
        ("NCCL_IB_ADDR_RANGE=10.0.0.0/24", (2, 27, 3), []),
        ("NCCL_IB_SUBNET_AWARE_ROUTING=1", (2, 29, 7), ["WARN"]),
        ("NCCL_SHM_USE_CUDA_MEMCPY=1", (2, 31, 2), ["WARN"]),
        ("NCCL_IB_TIMEOUT=18", (2, 22, 3), []),
        ("NCCL_IB_TIMEOUT=18", (2, 27, 3), ["WARN"]),
    ],
)
def test_a_line_for_one_nccl(line: str, version: Version, found: list[str]) -> None:
    """With a version the same line is judged by what that NCCL has and does."""
    assert [severity for _, severity, _ in said(line, nccl=version)] == found


def test_a_secret_in_a_file_for_everybody() -> None:
    """A secret in a world-readable file fails, its value is never told; in a private file it is nothing."""
    text = "HF_TOKEN=hf_abcdefgh\nHF_TOKEN_PATH=/x\n"
    assert check(text, mode=0o600) == check(text, mode=0o640) == ()
    (remark,) = check(text, mode=0o644)
    assert (remark.line, remark.variable, remark.value, remark.fix) == (1, "HF_TOKEN", MASK, "chmod 600 FILE")
    assert "hf_abcdefgh" not in json.dumps(
        [asdict(item) for item in check("HF_TOKEN=hf_abcdefgh\n" + text, mode=0o644)]
    )


@pytest.mark.parametrize(
    ("line", "fix"),
    [
        ("RAY_MODE=wroker", "RAY_MODE=worker"),
        ("NCCL_IB_DISABLE=true", "NCCL_IB_DISABLE=1"),
        ("NCCL_IB_DISABLE=off", "NCCL_IB_DISABLE=0"),
        ("RAY_ADDRESS=10.0.0.1", "RAY_ADDRESS=10.0.0.1:6379"),
        ("NCCL_NET_GDR_LEVEL=phb", "NCCL_NET_GDR_LEVEL=PHB"),
        ("NCCL_IB_HCA=mlx5_1,mlx5_2", "NCCL_IB_HCA==mlx5_1,mlx5_2   # = in front: exactly these"),
        ("NCCL_IB_HCA=^mlx5_1", "NCCL_IB_HCA=^=mlx5_1   # = in front: exactly these"),
        ("NCCL_IB_TC=104", "NCCL_IB_TC=106   # ECN bits 10"),
        ("NCCL_IB_GIDINDEX=3", "NCCL_IB_GID_INDEX=3, if that was meant; else remove it"),
    ],
)
def test_the_fix_is_the_line_to_write(line: str, fix: str) -> None:
    """Where the right line is known, the fix is that line; and it is no finding itself."""
    assert [item.fix for item in check(line)] == [fix]


def test_the_fix_names_the_file(folder: Path) -> None:
    """A command that mends the file has its name in it."""
    (folder / "a.env").write_bytes(b"A=1\r\n")
    assert r"fix: sed -i '1s/^\xEF\xBB\xBF//; s/\r$//' a.env" in shoal("a.env").stdout


LINE = st.tuples(st.sampled_from([row.name for row in VARIABLES] + ["NCCL_X", "A"]), st.text(max_size=12)).map("=".join)


@given(st.one_of(st.text(), st.lists(LINE).map("\n".join)))
def test_any_text_is_judged(text: str) -> None:
    """No text makes the check fail, and no remark is without words."""
    for remark in check(text, mode=0o644):
        assert isinstance(remark, Remark)
        assert remark.what
