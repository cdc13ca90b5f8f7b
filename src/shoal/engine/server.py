"""vLLM's server as a child: started, its log followed through the phases, its end told in its own words."""

import sys
import time
from pathlib import Path

from shoal.agent import ranks
from shoal.agent.supervise import Child, descendants
from shoal.engine import launch, phases
from shoal.engine.executor import Executor
from shoal.engine.nodes import Nodes
from shoal.explain.errors import first_cause
from shoal.log import EventLog
from shoal.spec.env import ServeSettings

# Seconds from TERM to KILL. After a fault its evidence is saved by then, and nothing of it is worth a wait.
GRACE, FAULT_GRACE = 3.0, 0.5
SAID = 400_000


class Server:
    """One vLLM server at a time."""

    def __init__(self, settings: ServeSettings, request: launch.Request, executor: Executor, log: EventLog) -> None:
        self._request = request
        self._executor = executor
        self._log = log
        self._folder = Path(settings.state_dir)
        self._child: Child | None = None
        self._read_to = 0
        self._trouble = ""
        self.log_moved = time.monotonic()
        self.timeline = phases.Timeline(phases.GATE, time.monotonic())

    @property
    def path(self) -> Path:
        """Its log."""
        return self._folder / "logs" / "vllm.log"

    @property
    def pid(self) -> int | None:
        """Process id; None where none was started."""
        return self._child.pid if self._child else None

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._child is not None and self._child.code is None

    def start(self, nodes: Nodes) -> None:
        """Start it on these nodes; its timeline goes on from the gate.

        What keeps it from starting is told as its end.
        """
        self.log_moved = time.monotonic()
        try:
            self._start(nodes)
        except OSError as error:
            self._trouble = f"vLLM could not be started: {error}"
            return
        self._trouble = ""
        self._enter(phases.PLACEMENT)

    def _start(self, nodes: Nodes) -> None:
        env = self._executor.environment(nodes)
        config = Path(env.get("VLLM_CONFIG_ROOT", str(self._folder / "vllm-config")))
        config.mkdir(parents=True, exist_ok=True)
        self._executor.lay_out(config, env)
        argv = launch.argv(sys.executable, self._request, self._executor.words())
        self._executor.begin(nodes, self.path.parent)
        self._child = Child.start(argv, env=env, log=self.path, cwd=config)
        self._read_to = self._child.offset
        self._log("launch", " ".join(argv[2:]))

    def follow(self) -> None:
        """Read on in its log and move the timeline."""
        if self._child is None:
            return
        text, position = self._child.read_from(self._read_to)
        if position != self._read_to:
            self._read_to, self.log_moved = position, time.monotonic()
        for line in text.splitlines():
            if phase := phases.begins(line):
                self._enter(phase)

    def _enter(self, phase: str) -> None:
        after = self.timeline.enter(phase, time.monotonic())
        if after is not self.timeline:
            self.timeline = after
            self._log("phase", phase)

    def listens(self) -> bool:
        """Whether its log says that it takes requests."""
        return self.timeline.phase == phases.FIRST_TOKEN

    def first_token(self) -> None:
        """The start is over."""
        self.timeline = self.timeline.finish(time.monotonic())
        took = ", ".join(f"{name} {value:g} s" for name, value in self.timeline.seconds(time.monotonic()).items())
        self._log("phase", f"done: {took}")

    def ending(self) -> str:
        """Why it ended; empty while it runs."""
        if self._child is None or self.running:
            return self._trouble or self._executor.trouble()
        output = self._child.output(SAID)
        lines = [line for line in output.splitlines() if line.strip()]
        cause = first_cause(output) or (lines[-1].strip()[:300] if lines else "it said nothing")
        # vLLM ends with code 0 on engine death as on a clean stop: the code is told, it decides nothing.
        return f"vLLM ended (code {self._child.code}): {cause}"

    def processes(self) -> list[int]:
        """The ids of the server and of all below it, the engine core among them."""
        pid = self.pid
        return [] if pid is None else [pid, *(process.pid for process in descendants(pid))]

    async def end(self, grace: float = GRACE) -> list[str]:
        """End it and all below it; returns the shared memory that it left and that was removed."""
        self._trouble = ""
        await self._executor.end()
        if self._child is None:
            return []
        used = ranks.segments(self.processes())
        await self._child.stop(grace)
        self._child = None
        return ranks.remove(used, set())
