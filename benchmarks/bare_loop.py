"""The rival of `shoal bench fabric`: the shortest loop that measures an all_reduce with torch. No Ray, no shoal.

    python -m torch.distributed.run --nproc-per-node 2 benchmarks/bare_loop.py SIZE...

Prints one JSON object, size -> seconds of one all_reduce, on rank 0.
"""

import json
import os
import sys
import time

import torch
import torch.distributed as dist

WARM_UP, ITERATIONS = 5, 20


def seconds(size: int, device: torch.device) -> float:
    """Average of 20 operations after five, as nccl-tests does by default."""
    data = torch.zeros(size // 4, dtype=torch.float32, device=device)
    for _ in range(WARM_UP):
        dist.all_reduce(data)
    torch.cuda.synchronize(device)
    dist.barrier()
    began = time.perf_counter()
    for _ in range(ITERATIONS):
        dist.all_reduce(data)
    torch.cuda.synchronize(device)
    return (time.perf_counter() - began) / ITERATIONS


def main(sizes: list[int]) -> None:
    """Measure each size."""
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", device_id=device)
    found = {size: seconds(size, device) for size in sizes}
    if dist.get_rank() == 0:
        print(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]])
