"""The agent: reads its settings, walks the stages, answers over HTTP. ``stages`` decides, this does."""

import asyncio
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from shoal import __version__
from shoal.agent import preflight, ray_command, stages
from shoal.agent.app import agent_app
from shoal.agent.endpoint import Endpoint, bind
from shoal.agent.program import Start, run
from shoal.agent.stages import Action, Observation, Rules, Stage, State
from shoal.agent.supervise import Child, become_subreaper, reap_orphans
from shoal.agent.verify import judge
from shoal.errors import ShoalError
from shoal.facts.grpc_health import Health, serving
from shoal.facts.ray import drain_argv, parse_table, table_argv
from shoal.facts.ray_logs import read_fault
from shoal.facts.versions import versions
from shoal.host.local import LocalHost
from shoal.log import EventLog, Level
from shoal.spec.env import AgentSettings, agent_settings
from shoal.state.status import NodeState, NodeStatus

SLOW, FAST = 1.0, 0.2
# What Ray prints beside the cause: counters with "error" in their names, and a metrics exporter that nobody runs.
CHATTER = re.compile(r"\[state-dump\]|metrics exporter|metrics agent")


class Agent:
    """One node's agent."""

    def __init__(self, settings: AgentSettings, env: Mapping[str, str], log: EventLog) -> None:
        self._settings = settings
        self._env = dict(env)
        self._log = log
        self._rules = Rules(settings.mode == "head", settings.join_timeout, settings.restarts)
        self._ports = ray_command.ports_of(settings)
        self._logs = Path(settings.state_dir or settings.temp_dir) / "logs"
        self._ray: Child | None = None
        self._verifier: Child | None = None
        self._node_id: str | None = None
        self._former: set[str] = set()
        self._gpus = 0
        self._drained = False
        self._stop = asyncio.Event()
        self._versions = versions()
        self.state = State(Stage.WAIT_HEAD, time.monotonic())

    async def run(self) -> int:
        """Live until told to stop; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        become_subreaper()
        self._logs.mkdir(parents=True, exist_ok=True)
        endpoint = Endpoint(agent_app(self.status), [bind(self._settings.address, self._settings.agent_port)])
        endpoint.start()
        try:
            await self._live()
        finally:
            await self._end_children()
            await endpoint.stop()
        return 1 if self.state.stage is Stage.FAILED else 0

    async def _live(self) -> None:
        self._gpus = self._prepare()
        self.state, actions = stages.first(self._rules, time.monotonic())
        self._say(None)
        await self._act(actions)
        while self.state.stage is not Stage.STOPPED:
            before, seen = self.state, await self._observe()
            self.state, actions = stages.step(before, seen, self._rules)
            self._say(before)
            await self._act(actions)
            if self.state.stage is Stage.JOIN and seen.head_serving:
                # The check loads Ray while the raylet starts, instead of after it.
                self._start_verifier()
            await self._pause()

    def _prepare(self) -> int:
        who = f"{self._settings.mode} {self._name()} at {self._settings.address}"
        self._log("banner", f"shoal {__version__} agent, {who}")
        preflight.banner(self._log, self._env)
        preflight.plugin(self._log, self._env)
        seen = preflight.look(self._log, LocalHost())
        preflight.clean(self._log, self._settings)
        return seen if self._settings.num_gpus is None else self._settings.num_gpus

    def _name(self) -> str:
        return self._settings.name or socket.gethostname()

    async def _pause(self) -> None:
        reap_orphans()
        pace = SLOW if self.state.stage in {Stage.UP, Stage.FAILED} else FAST
        try:
            await asyncio.wait_for(self._stop.wait(), pace if not self._stop.is_set() else None)
        except TimeoutError:
            return
        if self.state.stage is Stage.DRAIN:
            await asyncio.sleep(FAST)

    async def _observe(self) -> Observation:
        head, raylet = await asyncio.gather(self._ask_head(), self._ask_raylet())
        verified, reason = self._verdict()
        running = self._ray is not None and self._ray.code is None
        return Observation(
            now=time.monotonic(),
            head_serving=head.serving,
            head_reason=head.reason,
            ray_running=running,
            ray_tail="" if running or self._ray is None else last_words(self._ray.output()),
            raylet_serving=raylet.serving,
            verified=verified,
            verify_reason=reason,
            stop_requested=self._stop.is_set(),
            drained=self._drained,
            ray_fault=self._fault(running=running),
        )

    def _fault(self, *, running: bool) -> str:
        """What Ray's own processes died of; looked up while it starts and once it has ended."""
        if self._ray is None or (running and self.state.stage is not Stage.JOIN):
            return ""
        return read_fault(Path(self._settings.temp_dir), self._ray.started)

    async def _ask_head(self) -> Health:
        address, _, port = self._settings.head.rpartition(":")
        return await serving(address, int(port), timeout=1.0)

    async def _ask_raylet(self) -> Health:
        if self._ray is None:
            return Health(serving=False, reason="not started")
        return await serving(self._settings.address, self._ports.node_manager, timeout=1.0)

    def _verdict(self) -> tuple[bool | None, str]:
        if self.state.stage is not Stage.VERIFY or self._verifier is None or self._verifier.code is None:
            return None, ""
        try:
            table = parse_table(self._verifier.output(1_000_000))
        except ShoalError as error:
            return False, str(error)
        self._node_id, reason = judge(table, self._settings.address, self._gpus, self._former)
        return self._node_id is not None, reason

    async def _act(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            if action is Action.START_RAY:
                self._start_ray()
            elif action is Action.VERIFY:
                self._start_verifier()
            elif action is Action.STOP_RAY:
                await self._end_children()
            elif action is Action.DRAIN:
                await self._drain()

    def _start_ray(self) -> None:
        argv = ray_command.start_argv(sys.executable, self._settings, self._gpus)
        env = ray_command.start_env(self._settings, self._env)
        log = self._logs / f"{self._name()}.ray.log"
        self._ray = Child.start(argv, env=env, log=log, cwd=Path(self._settings.temp_dir))

    def _start_verifier(self) -> None:
        if self._verifier is not None:
            return
        argv = table_argv(
            sys.executable,
            self._settings.head,
            wait=self._settings.address,
            timeout=self._settings.join_timeout,
            former=self._former,
        )
        log = self._logs / f".{self._name()}.verify.json"
        log.unlink(missing_ok=True)
        self._verifier = Child.start(argv, env=self._child_env(), log=log)

    def _child_env(self) -> dict[str, str]:
        return ray_command.start_env(self._settings, self._env)

    async def _drain(self) -> None:
        if self._node_id is not None:
            argv = drain_argv(sys.executable, self._settings.head, self._node_id, deadline=5, reason="PREEMPTION")
            child = Child.start(argv, env=self._child_env(), log=self._logs / f".{self._name()}.drain.json")
            await child.wait(8)
            await child.stop(0.5)
        self._drained = True

    async def _end_children(self) -> None:
        for child in (self._verifier, self._ray):
            if child is not None:
                await child.stop(4.0)
        if self._node_id is not None:
            self._former.add(self._node_id)
        self._ray = self._verifier = self._node_id = None

    def _say(self, before: State | None) -> None:
        state = self.state
        moved = before is None or before.stage is not state.stage
        waited = time.monotonic() - state.said > stages.SAY_AGAIN and state.stage in {Stage.WAIT_HEAD, Stage.JOIN}
        if not moved and not waited:
            return
        level: Level = "error" if state.stage is Stage.FAILED else "warn" if state.stage is Stage.BACKOFF else "info"
        seconds = f" ({time.monotonic() - state.since:.0f} s)" if waited and not moved else ""
        words = state.detail or f"node {self._node_id} is in the cluster with {self._gpus} GPU(s)"
        self._log(state.stage.value.lower(), words + seconds, level=level)
        self.state = stages.said(state, time.monotonic())

    def status(self) -> NodeStatus:
        """What this node is now."""
        return NodeStatus(
            name=self._name(),
            role=self._settings.mode,
            address=self._settings.address,
            state=stages.NODE_STATE.get(self.state.stage, NodeState.STARTING),
            stage=self.state.stage.value,
            detail=self.state.detail,
            gpus=self._gpus,
            versions=self._versions,
            ray_node_id=self._node_id,
            pid=os.getpid(),
            restarts=len(self.state.restarts),
        )


def last_words(text: str) -> str:
    """The line of a failed ``ray start`` that names the cause: the last one that is no decoration."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not CHATTER.search(line)]
    telling = [line for line in lines if "Error" in line or "rror:" in line or "abort" in line.lower()]
    return (telling or lines or [""])[-1][:300]


def main(env: Mapping[str, str]) -> int:
    """Run the agent; returns the exit code (78: malformed settings)."""

    def prepare() -> Start:
        settings = agent_settings(env)
        return lambda log: Agent(settings, env, log).run()

    return run(env, prepare)
