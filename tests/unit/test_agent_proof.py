"""What an agent tells at `/proof`, and where its ranks' NCCL writes."""

import os
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from shoal.agent.app import agent_app
from shoal.agent.proof import NcclFiles, Prover, Who
from shoal.bench.counters import NodeProof, Process
from shoal.host.local import LocalHost
from shoal.plan.nccl_files import nccl_files
from shoal.spec.env_table import PER_NODE
from shoal.state.status import NodeState, NodeStatus

NODE = NodeStatus(name="w", role="worker", address="10.0.0.2", state=NodeState.UP)
LOG = """\
box:{pid}:7 [0] NCCL INFO NCCL version 2.27.7+cuda12.9
box:{pid}:7 [0] NCCL INFO NET/IB : Using [0]mlx5_0:1/RoCE [RO]; OOB eth0:10.0.0.2<0>
box:{pid}:7 [0] NCCL INFO Using network IB
box:{pid}:7 [0] NCCL INFO Channel 00/0 : 1[0] -> 0[0] [send] via NET/IB/0/GDRDMA
box:{pid}:7 [0] NCCL INFO ncclCommInitRank comm 0x1 rank 1 nranks 2 cudaDev 0 busId 1000 commId 0x2 - Init COMPLETE
"""


def prover(folder: Path, env: dict[str, str], *, cpu: bool = False) -> Prover:
    return Prover(LocalHost(), Who("w", "10.0.0.2", "2.27.7", cpu, env), NcclFiles(folder / "nccl"))


def test_what_nccl_wrote_is_told_for_each_process(tmp_path: Path) -> None:
    """Version, network, devices, transports and GPUDirect of a process, whether it lives, and its last line."""
    files = NcclFiles(tmp_path)
    path = tmp_path / f"box.{os.getpid()}.log"
    path.write_text(LOG.format(pid=os.getpid()))
    (told,) = files.read(path.stat().st_mtime + 3)
    assert told == Process(
        file=path.name, pid=os.getpid(), alive=True, rank=1, ranks=2, version="2.27.7+cuda12.9", network="IB",
        rdma=True, gdr=True, hcas=("mlx5_0",), transports={"NET/IB": 1}, complete=True,
        last=LOG.format(pid=os.getpid()).splitlines()[-1], quiet_s=3.0,
    )  # fmt: skip


def test_files_are_read_on_and_not_again(tmp_path: Path) -> None:
    """A second look takes in what was written since the first; half a line waits for its end."""
    files, path = NcclFiles(tmp_path), tmp_path / "box.1.log"
    path.write_text("box:1:1 [0] NCCL INFO Using network Soc")
    assert [one.network for one in files.read(0)] == [""]
    with path.open("a") as log:
        log.write("ket\n")
    assert [one.network for one in files.read(0)] == ["Socket"]
    assert [one.network for one in files.read(0)] == ["Socket"]


def test_ranks_write_to_files_that_go_with_their_ray(tmp_path: Path) -> None:
    """Each process has a file of its own; a new Ray begins with an empty folder, and at the end none is left."""
    one = prover(tmp_path, {"NCCL_IB_HCA": "=mlx5_0", "NCCL_DEBUG": ""})
    folder = tmp_path / "nccl"
    folder.mkdir()
    (folder / "old.1.log").touch()
    assert one.renew() == f"NCCL writes what it chooses to {folder}, a file for each process"
    assert (folder.is_dir(), list(folder.iterdir())) == (True, [])
    assert one.ranks_env() == {
        "NCCL_IB_HCA": "=mlx5_0",
        "NCCL_DEBUG": "INFO",
        "NCCL_DEBUG_SUBSYS": "INIT,NET,ENV",
        "NCCL_DEBUG_FILE": f"{folder}/%h.%p.log",
    }
    one.remove()
    assert not folder.exists()


@pytest.mark.parametrize("name", ["NCCL_DEBUG", "NCCL_DEBUG_FILE", "NCCL_DEBUG_SUBSYS"])
def test_who_sets_nccls_debugging_keeps_it(tmp_path: Path, name: str) -> None:
    """Where somebody has set one of the NCCL_DEBUG variables, none is set by us; `auto` is not set."""
    one = prover(tmp_path, {name: "WARN"})
    assert (one.renew(), one.ranks_env(), (tmp_path / "nccl").exists()) == ("", {name: "WARN"}, False)
    assert len(nccl_files({name: "auto"}, tmp_path)) == 3


def test_ranks_on_cpus_get_no_settings_of_nccl(tmp_path: Path) -> None:
    """A CPU build of vLLM has no NCCL that could write."""
    one = prover(tmp_path, {"A": "b"}, cpu=True)
    assert (one.renew(), one.ranks_env()) == ("", {"A": "b"})


def test_the_path_never_travels_to_another_node() -> None:
    """Each node has a path of its own: vLLM must not copy the head's."""
    assert "NCCL_DEBUG_FILE" in PER_NODE


def test_the_endpoint_tells_and_wants_the_key(tmp_path: Path) -> None:
    """`GET /proof` is the node's document for who shows the cluster's key, and nothing for others."""
    route = prover(tmp_path, {"NCCL_IB_DISABLE": "1", "HF_TOKEN": "secret"}).route(lambda: "k")
    client = TestClient(agent_app(lambda: NODE, (route,)))
    assert client.get("/proof").status_code == 401
    text = client.get("/proof", headers={"Authorization": "Bearer k"}).text
    told = NodeProof.model_validate_json(text)
    assert (told.name, told.address, told.nccl, told.disabled) == ("w", "10.0.0.2", "2.27.7", "NCCL_IB_DISABLE=1")
    assert (told.planned, told.processes, "secret" in text) == ((), (), False)
