"""One rank of the fabric bench: collectives and pairs by torch.distributed, timed. The one module that imports torch.

It is sent to the nodes as text and run there, so it imports nothing of shoal. Every rank runs the same steps in the
same order; rank 0 yields the rows. Bandwidths are computed from them elsewhere.
"""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

WARM_UP = 2
ROUNDS = 5
ROUND_SECONDS = 0.2  # iterations of a round are chosen to take about this long
LEAST_ITERATIONS, MOST_ITERATIONS = (
    4,
    200,
)  # with fewer, the first one of a round, which fills the pipes, weighs too much
WAIT = timedelta(seconds=120)


def run(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All steps of one rank.

    Args:
        spec: ``rank``, ``world``, ``master`` (ADDRESS:PORT of rank 0), ``backend`` (nccl or gloo), ``collectives``,
            ``sizes`` in bytes, ``pair_size`` in bytes or 0 for no pairs.

    Yields:
        On rank 0 ``{"kind": "collective", "name", "size", "seconds", "operations"}`` or ``"unsupported"`` with a
        reason, and ``{"kind": "pair", "source", "target", "size", "seconds"}``; on the others nothing.
    """
    rank, world = spec["rank"], spec["world"]
    device = torch.device("cuda", 0) if spec["backend"] == "nccl" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    host, _, port = spec["master"].rpartition(":")
    store = dist.TCPStore(host, int(port), world, is_master=rank == 0, timeout=WAIT)
    dist.init_process_group(spec["backend"], store=store, rank=rank, world_size=world, timeout=WAIT)
    try:
        for row in _rows(spec, device):
            if rank == 0:
                yield row
    finally:
        dist.destroy_process_group()


def _rows(spec: dict[str, Any], device: torch.device) -> Iterator[dict[str, Any]]:
    for name in spec["collectives"]:
        for size in spec["sizes"]:
            row = {"kind": "collective", "name": name, "size": size}
            try:
                operation = COLLECTIVES[name](size, spec["world"], device)
                seconds, operations = _timed(operation, device)
                yield row | {"seconds": seconds, "operations": operations}
            except (NotImplementedError, RuntimeError) as error:
                # All ranks meet the same refusal: this backend has no such collective.
                yield row | {"unsupported": str(error).splitlines()[0][:200]}
                break
    if spec["pair_size"]:
        yield from _pairs(spec, device)


def _all_reduce(size: int, world: int, device: torch.device) -> Callable[[], object]:
    del world
    data = torch.zeros(size // 4, dtype=torch.float32, device=device)
    return lambda: dist.all_reduce(data)


def _all_gather(size: int, world: int, device: torch.device) -> Callable[[], object]:
    part = torch.zeros(max(1, size // 4 // world), dtype=torch.float32, device=device)
    whole = torch.zeros(part.numel() * world, dtype=torch.float32, device=device)
    return lambda: dist.all_gather_into_tensor(whole, part)


def _reduce_scatter(size: int, world: int, device: torch.device) -> Callable[[], object]:
    part = torch.zeros(max(1, size // 4 // world), dtype=torch.float32, device=device)
    whole = torch.zeros(part.numel() * world, dtype=torch.float32, device=device)
    return lambda: dist.reduce_scatter_tensor(part, whole)


def _send_recv(size: int, world: int, device: torch.device) -> Callable[[], object]:
    """A ring: every rank sends to the next and receives from the one before."""
    rank = dist.get_rank()
    out = torch.zeros(size // 4, dtype=torch.float32, device=device)
    into = torch.zeros_like(out)

    def shift() -> None:
        operations = [
            dist.P2POp(dist.isend, out, (rank + 1) % world),
            dist.P2POp(dist.irecv, into, (rank - 1) % world),
        ]
        for work in dist.batch_isend_irecv(operations):
            work.wait()

    return shift


COLLECTIVES: dict[str, Callable[[int, int, torch.device], Callable[[], object]]] = {
    "all_reduce": _all_reduce,
    "all_gather": _all_gather,
    "reduce_scatter": _reduce_scatter,
    "send_recv": _send_recv,
}


def _pairs(spec: dict[str, Any], device: torch.device) -> Iterator[dict[str, Any]]:
    """Each rank to each other, one pair at a time, all others idle."""
    rank, size = dist.get_rank(), spec["pair_size"]
    data = torch.zeros(size // 4, dtype=torch.float32, device=device)
    for source in range(spec["world"]):
        for target in range(spec["world"]):
            if source == target:
                continue

            def transfer(source: int = source, target: int = target) -> None:
                if rank == source:
                    dist.send(data, target)
                elif rank == target:
                    dist.recv(data, source)

            seconds, _ = _timed(transfer, device, rounds=3)
            yield {"kind": "pair", "source": source, "target": target, "size": size, "seconds": seconds}


def _timed(operation: Callable[[], object], device: torch.device, rounds: int = ROUNDS) -> tuple[float, int]:
    """Seconds of one operation: the median of several rounds, of the slowest rank in each; and how many ran in all."""
    for _ in range(WARM_UP):
        operation()
    iterations = _iterations(_slowest(_round(operation, device, 1), device))
    times = sorted(_slowest(_round(operation, device, iterations), device) for _ in range(rounds))
    return times[len(times) // 2], WARM_UP + 1 + rounds * iterations


def _iterations(seconds: float) -> int:
    return max(LEAST_ITERATIONS, min(MOST_ITERATIONS, int(ROUND_SECONDS / max(seconds, 1e-6))))


def _round(operation: Callable[[], object], device: torch.device, iterations: int) -> float:
    dist.barrier()
    _settle(device)
    began = time.perf_counter()
    for _ in range(iterations):
        operation()
    _settle(device)
    return (time.perf_counter() - began) / iterations


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _slowest(seconds: float, device: torch.device) -> float:
    """The slowest rank's time, on every rank alike: all must choose the same number of iterations."""
    told = torch.tensor([seconds], dtype=torch.float64, device=device)
    dist.all_reduce(told, op=dist.ReduceOp.MAX)
    return float(told.item())
