"""Shared memory, left behind by a killed process as vLLM's is."""

from multiprocessing import resource_tracker, shared_memory
from pathlib import Path

SHM = Path("/dev/shm")  # noqa: S108 (where the kernel keeps segments)


def litter() -> shared_memory.SharedMemory:
    """A segment ``/dev/shm/psm_*`` that nobody removes when this process is killed."""
    segment = shared_memory.SharedMemory(create=True, size=4096)
    # Without this Python's tracker would clean up after a killed process; vLLM's segments stay.
    resource_tracker.unregister(f"/{segment.name}", "shared_memory")
    return segment


def release(segment: shared_memory.SharedMemory) -> None:
    """Remove the segment, as a process does that ends in order. Its own way out would tell the tracker again."""
    segment.close()
    (SHM / segment.name).unlink(missing_ok=True)
