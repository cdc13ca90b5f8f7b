"""The engine supervisor: gate, launch, first token, watch, restart. ``gate``, ``watch`` and ``policy`` decide."""

import asyncio
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from shoal.agent.supervise import Child, reap_orphans
from shoal.engine import gate, launch, phases, policy, raylet_sign
from shoal.engine.agents import ask_agents
from shoal.engine.client import EngineClient
from shoal.engine.watch import PROBE_EVERY, Tokens
from shoal.explain.errors import first_cause
from shoal.facts.versions import versions
from shoal.log import EventLog
from shoal.spec.env import ServeSettings
from shoal.state.status import EngineState, EngineStatus, NodeState, NodeStatus

PROBE_SECONDS = 10.0
QUICK_PROBE_SECONDS = 3.0
WORDS = {EngineState.STARTING: "vLLM is loading", EngineState.READY: "tokens are produced"}


@dataclass(frozen=True)
class View:
    """What the supervisor tells of the engine."""

    state: EngineState = EngineState.WAITING
    detail: str = ""
    restarts: int = 0


class Supervisor:
    """Keeps one vLLM server producing tokens."""

    def __init__(
        self,
        settings: ServeSettings,
        request: launch.Request,
        client: EngineClient,
        env: Mapping[str, str],
        log: EventLog,
    ) -> None:
        self._settings = settings
        self._request = request
        self._client = client
        self._env = dict(env)
        self._log = log
        self._folder = Path(settings.state_dir)
        self._probing = asyncio.Lock()
        self._nodes: dict[str, NodeStatus | str] = {}
        self._launched_on: dict[str, str | None] = {}
        self._child: Child | None = None
        self._sign: Child | None = None
        self._read_to = 0
        self._timeline = phases.Timeline(phases.GATE, time.monotonic())
        self._tokens = Tokens()
        self.view = View()
        self.stop = asyncio.Event()

    async def run(self) -> int:
        """Live until told to stop; returns the exit code."""
        try:
            await self._live()
        finally:
            self._show(EngineState.STOPPING, "stopping")
            await self._end_child()
        return 0

    async def _live(self) -> None:
        ends: tuple[float, ...] = ()
        while not self.stop.is_set():
            self._timeline = phases.Timeline(phases.GATE, time.monotonic())
            self._tokens = Tokens()
            verdict = await self._gate()
            if not verdict.open:
                waited = time.monotonic() - self._timeline.since
                return await self._hold(f"the gate stayed shut for {waited:.0f} s: {verdict.reason}")
            why = await self._serve()
            if self.stop.is_set():
                return None
            was_ready = self._tokens.last is not None
            decision = policy.after_exit(ends, time.monotonic(), was_ready=was_ready, budget=self._settings.restarts)
            if isinstance(decision, policy.GiveUp):
                return await self._hold(f"{why} ({decision.why})")
            ends = (*ends, time.monotonic())
            self.view = replace(self.view, restarts=self.view.restarts + 1)
            self._show(EngineState.RESTARTING, f"{why}; starting again in {decision.delay:g} s")
            await self._sleep(decision.delay)
        return None

    async def _hold(self, why: str) -> None:
        """Stay down and tell why until somebody acts: an exit would only be restarted into the same fault."""
        self._timeline = self._timeline.finish(time.monotonic())
        self._show(EngineState.FAILED, why)
        await self.stop.wait()

    async def _gate(self) -> gate.Verdict:
        self._show(EngineState.WAITING, "waiting for the nodes")
        end = time.monotonic() + self._settings.join_timeout
        verdict = gate.Verdict(open=False)
        while not self.stop.is_set() and time.monotonic() < end:
            await self._ask_agents()
            verdict = gate.judge(self._settings.expect, self._nodes)
            if verdict.open:
                self._log("gate", f"open: {len(self._nodes)} node(s), all as expected")
                break
            self.view = replace(self.view, detail=verdict.reason)
            if any(isinstance(node, NodeStatus) and node.state is NodeState.FAILED for node in self._nodes.values()):
                break
            await self._sleep(0.2)
        return verdict

    async def _ask_agents(self) -> None:
        # The driver lives on this node, which may offer no GPU and so not be expected.
        addresses = list(dict.fromkeys([*(address for address, _ in self._settings.expect), self._settings.address]))
        self._nodes = await ask_agents(addresses, self._settings.agent_port)

    async def _serve(self) -> str:
        """Start the server, wait for its first token, watch it until it ends; returns why it ended."""
        self._start_child()
        self._enter(phases.PLACEMENT)
        self._show(EngineState.STARTING, "")
        while self._running() and not self._lost():
            await self._follow()
            if self._timeline.phase == phases.FIRST_TOKEN and await self._client.one_token(PROBE_SECONDS):
                self._first_token()
                await self._watch()
                break
            await self._sleep(0.2)
        why = self._lost() or self._ending()
        self._show(EngineState.UNREADY if self._tokens.last else EngineState.STARTING, why)
        await self._end_child()
        return why

    def _lost(self) -> str:
        return gate.lost(self._launched_on, self._nodes)

    def _start_child(self) -> None:
        self._launched_on = {
            address: node.ray_node_id for address, node in self._nodes.items() if isinstance(node, NodeStatus)
        }
        env = launch.environment(self._env, self._request, self._settings.address, versions().vllm)
        config = Path(env.get("VLLM_CONFIG_ROOT", str(self._folder / "vllm-config")))
        config.mkdir(parents=True, exist_ok=True)
        (config / "ray_non_carry_over_env_vars.json").write_text(launch.not_carried(env), encoding="utf-8")
        log = self._folder / "logs" / "vllm.log"
        argv = launch.argv(sys.executable, self._request)
        self._sign = raylet_sign.put_up(self._launched_on.get(self._settings.address), self._folder / "logs")
        self._child = Child.start(argv, env=env, log=log, cwd=config)
        self._read_to = self._child.offset
        self._log("launch", " ".join(argv[2:]))

    def _running(self) -> bool:
        return self._child is not None and self._child.code is None and not self.stop.is_set()

    async def _follow(self) -> None:
        """Read on in the engine's log and move the timeline."""
        if self._child is None:
            return
        text, self._read_to = self._child.read_from(self._read_to)
        for line in text.splitlines():
            if phase := phases.begins(line):
                self._enter(phase)
        if not await self._all_up():
            self.view = replace(self.view, detail=gate.judge(self._settings.expect, self._nodes).reason)

    def _enter(self, phase: str) -> None:
        after = self._timeline.enter(phase, time.monotonic())
        if after is not self._timeline:
            self._timeline = after
            self._log("phase", phase)

    def _first_token(self) -> None:
        now = time.monotonic()
        self._timeline = self._timeline.finish(now)
        self._tokens = self._tokens.probed(produced=True, now=now)
        took = ", ".join(f"{name} {value:g} s" for name, value in self._timeline.seconds(now).items())
        self._log("phase", f"done: {took}")
        self._show(EngineState.READY, "")

    async def _watch(self) -> None:
        while self._running() and not self._lost():
            await self._sleep(1.0)
            await self.refresh(time.monotonic() - PROBE_EVERY, PROBE_SECONDS)
            reap_orphans()

    async def refresh(self, since: float, patience: float) -> None:
        """Look at every node, and for a token where none was seen after ``since`` (monotonic seconds)."""
        if self.view.state not in {EngineState.READY, EngineState.UNREADY} or not self._running():
            return
        async with self._probing:
            whole = await self._all_up()
            if whole:
                await self._look_for_token(since, patience)
        if not self._running():
            self._show(EngineState.UNREADY, "the server has ended")
        elif not whole:
            self._show(EngineState.UNREADY, gate.judge(self._settings.expect, self._nodes).reason)
        elif not self._tokens.producing:
            self._show(EngineState.UNREADY, f"no token within {patience:g} s")
        else:
            self._show(EngineState.READY, "")

    async def _look_for_token(self, since: float, patience: float) -> None:
        counter = await self._client.generated_tokens(patience)
        self._tokens = self._tokens.counted(counter, time.monotonic())
        if self._tokens.producing_since(since):
            return
        produced = await self._client.one_token(patience)
        self._tokens = self._tokens.probed(produced=produced, now=time.monotonic())
        if not produced:
            # A full queue is no wedge: other requests' tokens count as well.
            counter = await self._client.generated_tokens(1.0)
            self._tokens = self._tokens.counted(counter, time.monotonic())

    async def _all_up(self) -> bool:
        await self._ask_agents()
        return gate.judge(self._settings.expect, self._nodes).open

    def _ending(self) -> str:
        if self._child is None or self.stop.is_set():
            return "stopped"
        output = self._child.output(400_000)
        lines = [line for line in output.splitlines() if line.strip()]
        cause = first_cause(output) or (lines[-1].strip()[:300] if lines else "it said nothing")
        # vLLM ends with code 0 on engine death as on a clean stop: the code is told, it decides nothing.
        return f"vLLM ended (code {self._child.code}): {cause}"

    async def _end_child(self) -> None:
        for child in (self._child, self._sign):
            if child is not None:
                await child.stop(15.0)
        self._child = self._sign = None

    def _show(self, state: EngineState, detail: str) -> None:
        if (state, detail) == (self.view.state, self.view.detail):
            return
        if state is not self.view.state:
            bad = state in {EngineState.FAILED, EngineState.UNREADY, EngineState.RESTARTING}
            self._log(state.value, detail or WORDS.get(state, ""), level="warn" if bad else "info")
        self.view = replace(self.view, state=state, detail=detail)

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self.stop.wait(), seconds)
        except TimeoutError:
            return

    def fault(self) -> str:
        """Why the engine stays down until somebody acts; empty while it does not."""
        return self.view.detail or "gave up" if self.view.state is EngineState.FAILED else ""

    async def status(self) -> EngineStatus:
        """The engine now: ``ready`` is said of a token that was seen after the question came, asked for if need be."""
        patience = QUICK_PROBE_SECONDS + 1
        try:
            await asyncio.wait_for(self.refresh(time.monotonic(), QUICK_PROBE_SECONDS), patience)
        except TimeoutError:
            self._show(EngineState.UNREADY, f"no token within {patience:g} s")
        now = time.monotonic()
        age = self._tokens.age(now)
        return EngineStatus(
            state=self.view.state,
            model=self._request.model,
            phase=self._timeline.phase,
            phases=self._timeline.seconds(now),
            last_token_age_s=None if age is None else round(age, 1),
            detail=self.view.detail,
            restarts=self.view.restarts,
            pid=self._child.pid if self._child else None,
        )
