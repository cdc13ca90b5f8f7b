"""A rank of the simulated engine: a Ray actor with one GPU. It holds no weights, and answers each step."""

import threading
import time

from shoal.lab.sim.shm import litter


class SimulatedWorker:
    """One rank."""

    def __init__(self, rank: int, step_seconds: float) -> None:
        self._rank = rank
        self._step_seconds = step_seconds
        self._segment = litter()
        self._end = threading.Event()

    def load(self, seconds: float) -> int:
        """Pretend to load weights; the rank's number."""
        time.sleep(seconds)
        return self._rank

    def run(self) -> None:
        """Stay until the end: whoever waits for this learns when the rank is gone, as vLLM's monitor does."""
        self._end.wait()

    def step(self, number: int) -> int:
        """One step: every rank must answer before a token exists."""
        time.sleep(self._step_seconds)
        return number
