"""The page of a stuck engine, out of stacks as py-spy and the kernel write them."""

from typing import Any, Self

import pytest

from shoal.agent import ras
from shoal.explain.autopsy import Said, Stand, behind, lagging, page, quietest, stands

DUMP = """\
== pid {pid} ray::RayWorkerProc
Process {pid}: ray::RayWorkerProc
Python v3.12.3 (/usr/bin/python3.12)

Thread {pid} (active): "MainThread"
    {top}
    execute_model (vllm/v1/worker/gpu_worker.py:512)
    worker_busy_loop (vllm/v1/executor/multiproc_executor.py:715)
Thread 99 (idle): "Thread-1"
    wait (threading.py:359)
"""
REDUCE = "all_reduce (torch/distributed/distributed_c10d.py:2810)"
COMPUTE = "forward (vllm/model_executor/layers/linear.py:380)"
DEQUEUE = "dequeue (vllm/distributed/device_communicators/shm_broadcast.py:569)"
KERNEL = "== pid 7 ray::RayWorkerProc\nthread 7 ray::RayWorker: S (sleeping); waits in futex_wait_queue\n"


def dump(*tops: str) -> tuple[Stand, ...]:
    """Ranks on nodes of their own, by their innermost frames."""
    return tuple(stand for at, top in enumerate(tops, 1) for stand in stands(f"n{at}", DUMP.format(pid=at, top=top)))


def test_a_dump_is_read_by_process_and_main_thread() -> None:
    """Pid, title and the frames of the main thread, the innermost first; other threads are left out."""
    (stand,) = dump(REDUCE)
    assert (stand.node, stand.pid, stand.title, stand.is_rank, stand.waits) == (
        "n1", 1, "ray::RayWorkerProc", True, "collective",
    )  # fmt: skip
    assert stand.frames == (
        REDUCE,
        "execute_model (vllm/v1/worker/gpu_worker.py:512)",
        "worker_busy_loop (vllm/v1/executor/multiproc_executor.py:715)",
    )


RANK = "ray::RayWorkerProc"
CASES = {
    (REDUCE, COMPUTE): f"1 of 2 ranks wait in a collective, and {RANK} (pid 2, n2) is in {COMPUTE}",
    (REDUCE, REDUCE, DEQUEUE): f"2 of 3 ranks wait in a collective, and {RANK} (pid 3, n3) is in {DEQUEUE}",
    (REDUCE, REDUCE): "all ranks (2) wait in a collective: the network, or a rank that has ended, keeps them",
    (DEQUEUE, DEQUEUE): (
        "all ranks (2) wait for work: what hangs is before them, in the engine core or the API server"
    ),
    (COMPUTE, COMPUTE): (
        f"no rank waits in a collective: {RANK} (pid 1, n1), {RANK} (pid 2, n2) in {COMPUTE}"
    ),
    (): "no rank of the engine runs on any node",
}  # fmt: skip


@pytest.mark.parametrize("tops", CASES, ids=lambda tops: "-".join(top.split()[0] for top in tops) or "none")
def test_the_rank_that_the_others_wait_for_is_named(tops: tuple[str, ...]) -> None:
    """By who waits in a collective and who does not."""
    assert lagging(dump(*tops)) == CASES[tops]


def test_stacks_of_the_kernel_alone_do_not_name_a_rank() -> None:
    """Without py-spy the kernel's words are shown, and what would tell more is said."""
    found = stands("n1", KERNEL)
    assert [(stand.pid, stand.frames, stand.text) for stand in found] == [(7, (), KERNEL.splitlines()[1])]
    assert lagging(found) == (
        "no rank's stack can be read; py-spy (pip install py-spy) with the capability SYS_PTRACE would tell"
    )


def said(number: int, quiet: float | None) -> Said:
    return Said(f"n{number}", f"rank {number}", "NET/IB", quiet, "Init COMPLETE")


def test_the_longest_silence_is_told_where_it_differs() -> None:
    """One process that wrote much earlier than another is named; like ones, or one alone, are not."""
    assert quietest([said(0, 100), said(1, 3)]) == "NCCL of rank 0 on n0 wrote last, 100 s ago, the longest of all"
    assert [quietest([said(0, 100)]), quietest([said(0, 5), said(1, 3)]), quietest([said(0, None), said(1, 3)])] == [
        "", "", "",
    ]  # fmt: skip


# NCCL 2.28.9 on two H100s, asked while rank 0 was between two operations.
RAS = """\
Warnings
========

#0-0 (6df70fad1e64ad17) MISMATCH
  Communicator ranks have different AllReduce operation counts
  Rank 1 has launched up to operation 63 -- GPU 0 (NVML 1) managed by process 622 on node 127.0.0.1
  Rank 0 has launched up to operation 60 -- GPU 0 managed by process 621 on node 127.0.0.1
"""


def test_nccls_own_report_names_who_is_behind() -> None:
    """The rank with fewer operations is told first; a report in which all are alike names nobody."""
    words = "NCCL's own report: ranks have launched different numbers of operations: rank 0 at 60, rank 1 at 63"
    assert (behind(RAS), behind(RAS.replace("63", "60")), behind("")) == (words, "", "")
    told = page("Autopsy", "engine ready", {}, [], {}, RAS)
    assert f"- {words}\n" in told
    assert f"## NCCL's own report (RAS)\n\n```text\n{RAS.strip()}\n```" in told


class Line:
    """A connection to NCCL's port that answers in pieces, then as told."""

    def __init__(self, *pieces: bytes | OSError) -> None:
        self.pieces = list(pieces)
        self.sent = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def settimeout(self, _: float) -> None:
        return

    def recv(self, _: int) -> bytes:
        piece = self.pieces.pop(0)
        if isinstance(piece, OSError):
            raise piece
        return piece


def refuse() -> Any:
    raise ConnectionRefusedError


def ask(line: Line) -> str:
    connect: Any = lambda: line  # noqa: E731 (a stand-in for a socket)
    return ras.report(connect, lambda: 0.0)


def test_nccl_is_asked_once_and_what_came_is_kept() -> None:
    """The whole answer; what came before it broke off; and nothing where nobody listens."""
    line = Line(b"NCCL ", b"2.28", b"")
    assert (ask(line), line.sent) == ("NCCL 2.28", b"verbose status\n")
    assert (ask(Line(b"NCCL", TimeoutError())), ras.report(refuse)) == ("NCCL", "")


def test_the_page_has_all_of_it() -> None:
    """Verdict first, then what is missing, NCCL's last words, and each stack."""
    stacks = {"n1": DUMP.format(pid=1, top=REDUCE), "n2": KERNEL}
    told = page("Autopsy", "engine unready", stacks, [said(1, 3)], {"n3": "no answer"})
    assert told.splitlines()[:12] == [
        "# Autopsy",
        "",
        "engine unready",
        "",
        "- all ranks (1) wait in a collective: the network, or a rank that has ended, keeps them",
        "",
        "- n3 told nothing: no answer",
        "",
        "## NCCL",
        "",
        "- rank 1 on n1: NET/IB, 3 s ago: `Init COMPLETE`",
        "",
    ]
    assert f"```text\n{REDUCE}\n" in told
    assert "### ray::RayWorkerProc (pid 7, n2)\n\n```text\nthread 7 ray::RayWorker: S (sleeping)" in told
