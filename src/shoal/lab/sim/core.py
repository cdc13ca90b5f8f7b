"""The engine core of the simulated engine: the process between the API server and the ranks, and Ray's driver.

It ends as vLLM's does: when a rank is gone the API server is told, and the process ends. A rank that does not answer
hangs the step for up to five minutes.
"""

import logging
import os
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

import ray
from shoal.lab.sim.answers import MODEL, prompt_tokens, token
from shoal.lab.sim.rank import SimulatedWorker
from shoal.lab.sim.shm import litter, release

STEP_TIMEOUT = 300.0  # vLLM's VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS
PLACEMENT_TIMEOUT = 1800.0  # vLLM's own
MONITOR_EVERY = 5.0

log = logging.getLogger("simulated")


@dataclass(frozen=True)
class Sizes:
    """What the engine is told: number of ranks, and how long it pretends."""

    world: int
    load_seconds: float
    step_seconds: float


@dataclass
class Request:
    """A request that is being answered."""

    prompt: str
    wanted: int
    made: int = 0


class Core:
    """The loop that turns requests into tokens, one for each running request and step."""

    def __init__(self, pipe: Connection, sizes: Sizes) -> None:
        self._pipe = pipe
        self._sizes = sizes
        self._sending = threading.Lock()
        self._running: dict[str, Request] = {}
        self._steps = 0
        self._ranks: list[Any] = []

    def tell(self, *message: Any) -> None:
        """Send one message to the API server."""
        with self._sending:
            self._pipe.send(message)

    def start(self) -> None:
        """Place and load the ranks, and watch them."""
        log.info("simulated engine core: %d rank(s) under Ray", self._sizes.world)
        ray.init(log_to_driver=False, logging_level="ERROR")
        group = placement_group([{"GPU": 1}] * self._sizes.world, strategy="PACK")
        ray.get(group.ready(), timeout=PLACEMENT_TIMEOUT)
        log.info("Starting to load model %s...", MODEL)
        actor = ray.remote(SimulatedWorker)
        self._ranks = [
            actor.options(
                num_cpus=0,
                num_gpus=1,
                max_concurrency=2,
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank),
            ).remote(rank, self._sizes.step_seconds)
            for rank in range(self._sizes.world)
        ]
        ray.get([rank.load.remote(self._sizes.load_seconds) for rank in self._ranks], timeout=STEP_TIMEOUT)
        log.info("init engine (profile, create kv cache, warmup model) took 0.00 seconds")
        threading.Thread(target=self._monitor, args=([rank.run.remote() for rank in self._ranks],), daemon=True).start()

    def _monitor(self, runs: list[Any]) -> None:
        """vLLM's executor monitor: a rank that is gone ends the engine, also while it is idle."""
        gone: list[Any] = []
        while not gone:
            gone, _ = ray.wait(runs, timeout=MONITOR_EVERY)
        self.die("a worker died unexpectedly")

    def die(self, why: str) -> None:
        """Tell the API server that the engine is dead, and end."""
        log.error("RuntimeError: Executor failed: %s (simulated)", why)
        try:
            self.tell("dead", why)
        finally:
            os._exit(1)

    def live(self) -> None:
        """Take requests and make tokens until the API server is gone or says that it is over."""
        while True:
            while self._pipe.poll(0 if self._running else 0.5):
                self._take(self._pipe.recv())
            if self._running:
                self._step()

    def _take(self, message: tuple[Any, ...]) -> None:
        kind, name, *rest = message
        if kind == "add":
            self._running[name] = Request(*rest)
        elif kind == "abort":
            self._running.pop(name, None)

    def _step(self) -> None:
        self._steps += 1
        try:
            ray.get([rank.step.remote(self._steps) for rank in self._ranks], timeout=STEP_TIMEOUT)
        except ray.exceptions.RayError as error:  # a rank is gone, or did not answer
            self.die(type(error).__name__)
        prompts = sum(prompt_tokens(request.prompt) for request in self._running.values() if request.made == 0)
        self.tell("step", prompts + len(self._running))
        for name, request in list(self._running.items()):
            text = token(request.prompt, request.made)
            request.made += 1
            over = request.made >= request.wanted
            if over:
                del self._running[name]
            self.tell("token", name, text, over)


def main(pipe: Connection, sizes: Sizes) -> None:
    """Run the engine core; it ends with the API server's order, by a signal, or when a rank is gone."""
    logging.basicConfig(level=logging.INFO, format="(EngineCore pid=%(process)d) %(levelname)s %(message)s")
    ray._raylet.setproctitle("SIMULATED::EngineCore")  # noqa: SLF001 (Ray brings the function, and has no other name for it)
    segment = litter()
    core = Core(pipe, sizes)
    try:
        core.start()
        core.tell("ready")
        core.live()
    except (EOFError, BrokenPipeError):
        # Killed API server: vLLM's core stays as well, and somebody has to end it.
        while True:
            time.sleep(60)
    except ray.exceptions.RayError as error:
        core.die(str(error).partition("\n")[0])
    finally:
        release(segment)
