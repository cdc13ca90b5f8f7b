"""The agent: reads its settings, walks the stages, answers over HTTP. ``stages`` decides, this does."""

import asyncio
import functools
import os
import random
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from shoal import __version__
from shoal.agent import arrival, auto, checkup, devices, fabric, family, hub, preflight, ray_command, rpc, stages
from shoal.agent.app import agent_app
from shoal.agent.disk import Disk
from shoal.agent.endpoint import Endpoint
from shoal.agent.executor import Executor
from shoal.agent.family import FamilyFile
from shoal.agent.follow import Follower
from shoal.agent.heart import Heart
from shoal.agent.key import cluster_key
from shoal.agent.live import Live, beats
from shoal.agent.mp_executor import MpExecutor
from shoal.agent.orders import Node, Orders
from shoal.agent.page.routes import Page
from shoal.agent.program import Start, run
from shoal.agent.proof import NcclFiles, Prover, Who
from shoal.agent.ray_executor import RayExecutor
from shoal.agent.readings import Readings
from shoal.agent.stages import Action, Observation, Rules, Stage, State
from shoal.agent.supervise import become_subreaper, reap_orphans
from shoal.agent.talk import Board, talk_routes
from shoal.agent.turns import Turns
from shoal.checks.base import Finding
from shoal.errors import ShoalError
from shoal.facts.versions import is_cpu_build, versions
from shoal.host.gather import gather
from shoal.host.local import LocalHost
from shoal.log import EventLog, Level
from shoal.plan.executor import choose
from shoal.spec.env import AgentSettings, agent_settings
from shoal.state.journal import Journal, journal_file
from shoal.state.status import ExecutorKind, NodeState, NodeStatus

SLOW, FAST = 1.0, 0.2
FAMILY_EVERY = 10.0
# Seconds until a machine that was not fit is looked at again, where nobody waits at a terminal.
LOOK_AGAIN = 60.0


class Agent:
    """One node's agent."""

    def __init__(self, settings: AgentSettings, kind: ExecutorKind, env: Mapping[str, str], log: EventLog) -> None:
        self._settings = settings
        self._kind = kind
        self._env = dict(env)
        self._log = log
        self._host = LocalHost()
        self._rules = Rules(
            settings.mode == "head",
            settings.join_timeout,
            settings.restarts,
            settings.lost_after,
            settings.restart_window,
        )
        folder = Path(settings.state_dir or settings.temp_dir)
        self._folder = folder
        self._logs = folder / "logs"
        self._journal = journal_file(folder, self._name())
        self._family = FamilyFile(self._host, folder / f"agent-{self._name()}.json")
        self._family_at = 0.0
        self._board = Board(settings.lost_after)
        self._disk = Disk(folder, log)
        self._heart = Heart(self._head_agent(), self.status, self._key)
        self._order = ""
        self._gpus = 0
        self._suspect = False
        self._stop = asyncio.Event()
        self._versions = versions()
        files = NcclFiles(folder / "nccl" / self._name())
        rank_log = self._logs / f"{self._name()}.rank.log"
        self._follower = Follower(Path(settings.temp_dir), log, files.folder, rank_log)
        who = Who(self._name(), settings.address, self._versions.nccl, is_cpu_build(), self._env)
        self._prover = Prover(self._host, who, files)
        self._executor = self._form(kind)
        self._visible = env.get("CUDA_VISIBLE_DEVICES", "")
        temp, journal = Path(settings.temp_dir), self._journal
        node = Node(self._name(), self._logs, temp, journal, self._executor, self._take, self._visible)
        self._orders = Orders(self._host, node, log)
        self._findings: tuple[Finding, ...] = ()
        readings = Readings(functools.partial(gather, self._host))
        self._live = Live(self.status, readings, lambda: self._findings, lambda: beats(self._board, self._heart))
        self.state = State(Stage.WAIT_HEAD, time.monotonic())

    async def run(self) -> int:
        """Live until told to stop; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        become_subreaper()
        more = talk_routes(self.status, self._board, self._key, self._journal)
        more = (*more, *self._orders.routes(self._key), self._prover.route(self._key), self._live.route(self._key))
        page = Page(self._host, self._settings, self.status, self._board, self._key) if self._rules.is_head else None
        app = agent_app(self.status, (*more, *(page.routes() if page else ())), self._live.look)
        endpoint = Endpoint(app, arrival.sockets(self._settings.address, self._settings.agent_port))
        self._remember()
        endpoint.start()
        beating = None if self._rules.is_head else asyncio.create_task(self._heart.run())
        try:
            await self._walk()
        finally:
            if beating is not None:
                beating.cancel()
            await self._executor.end()
            self._prover.remove()
            if page is not None:
                await page.close()
            await endpoint.stop()
        return 1 if self.state.stage is Stage.FAILED else 0

    def _remember(self) -> None:
        """Keep what is said from now on in the journal."""

        def complain(words: str) -> None:
            self._log("journal", words, level="warn", again=True)

        self._log.listeners.append(Journal(self._journal, self._name(), complain).listen)

    def _form(self, kind: ExecutorKind) -> Executor:
        settings, log, prover, heart = self._settings, self._log, self._prover, self._heart
        if kind is ExecutorKind.MP:
            return MpExecutor(settings, log, prover, heart, self._born, self._logs, self._name())
        turns = Turns(self._host, self._folder / f"raylet-{self._name()}.turn")
        return RayExecutor(settings, log, prover, heart.head, self._born, self._logs, self._name(), turns)

    def _born(self, pid: int) -> None:
        self._family.remember(family.of(self._host, [pid]))

    def _take(self, order: str) -> None:
        self._order = order

    def _head_agent(self) -> str:
        host = self._settings.head.rpartition(":")[0]
        return f"http://{host}:{self._settings.agent_port}"

    def _key(self) -> str | None:
        return cluster_key(self._host, self._env)

    async def _walk(self) -> None:
        if not await self._become_fit():
            return
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
                self._executor.verify()
            self._keep_family()
            self._follower.look_now_and_then()
            await self._pause()

    async def _become_fit(self) -> bool:
        """Look at the machine until it is fit; False where the agent was told to stop meanwhile."""
        while True:
            try:
                await self._prepare()
            except ShoalError as error:
                if self._settings.run_id:
                    raise  # somebody watches the bring-up, and reads the reason there
                self._fail(error)
            else:
                return True
            try:
                await asyncio.wait_for(self._stop.wait(), LOOK_AGAIN)
            except TimeoutError:
                continue
            return False

    def _fail(self, error: ShoalError) -> None:
        """Stay, and tell why at the health endpoint: an agent that ends is only started again by its container."""
        words = str(error).replace("\n", "; ")
        self.state = State(Stage.FAILED, time.monotonic(), detail=words)
        self._log("failed", f"{words}; looking again every {LOOK_AGAIN:g} s", level="error")

    async def _prepare(self) -> None:
        await self._end_orphans()  # first: they may hold the GPUs
        wanted = self._settings.num_gpus
        # On the head the ranks of `mp` belong to the supervisor, which may have them at this moment.
        shared = bool(self._settings.share_gpus) or (self._rules.is_head and self._kind is ExecutorKind.MP)
        self._gpus = await asyncio.to_thread(
            devices.look, self._log, self._host, wanted, shared=shared, visible=self._visible
        )
        ignored = checkup.demoted(self._settings.preflight_ignore)
        self._findings = await asyncio.to_thread(checkup.look, self._host, self._env)
        checkup.tell(self._log, self._findings, ignored)
        if self._key() is None:
            kept = "ranks are left to Ray" if self._kind is ExecutorKind.RAY else "no ranks are started here"
            words = f"no token (RAY_AUTH_TOKEN_PATH) here: the supervisor's orders are refused, and {kept}"
            self._log("preflight", words, level="warn")
        await self._end_orphans()
        preflight.clean(self._log, self._settings)
        self._logs.mkdir(parents=True, exist_ok=True)

    async def _end_orphans(self) -> None:
        found, left = await self._family.end_orphans()
        if found:
            words = f"ended {len(found) - len(left)} process(es) of this agent's earlier Ray"
            more = f"; still there: {', '.join(f'pid {process.pid}' for process in left)}" if left else ""
            self._log("clean", words + more, level="warn" if left else "info")

    def _keep_family(self) -> None:
        pid = self._executor.pid
        if pid is None or time.monotonic() - self._family_at < FAMILY_EVERY:
            return
        self._family_at = time.monotonic()
        self._family.remember(family.below(self._host, pid))
        self._orders.notice()

    def _name(self) -> str:
        return self._settings.name or socket.gethostname()

    async def _pause(self) -> None:
        """Wait for the next look; a stop, an order and a Ray that ends cut it short."""
        reap_orphans()
        pace = SLOW if self.state.stage in {Stage.UP, Stage.FAILED} else FAST
        ran = self._executor.running
        end = time.monotonic() + pace
        while (left := end - time.monotonic()) > 0 and not self._order and self._executor.running is ran:
            if self._stop.is_set():
                await asyncio.sleep(FAST if self.state.stage is Stage.DRAIN else 0)
                return
            try:
                await asyncio.wait_for(self._stop.wait(), min(FAST, left))
            except TimeoutError:
                continue

    async def _observe(self) -> Observation:
        self._disk.look()
        seen = await self._executor.look(self.state.stage)
        order, self._order = self._order, ""
        dice = random.random()  # noqa: S311 (spreads restarts, keeps no secret)
        return replace(seen, stop_requested=self._stop.is_set(), order=order, dice=dice)

    async def _act(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            if action is Action.START_RAY:
                self._executor.begin(self._gpus)
            elif action is Action.VERIFY:
                self._executor.verify()
            elif action is Action.STOP_RAY:
                await self._executor.end()
            elif action is Action.DRAIN:
                await self._executor.drain()

    def _say(self, before: State | None) -> None:
        state, now = self.state, time.monotonic()
        moved = before is None or before.stage is not state.stage
        suspect = state.node_state(now) is NodeState.SUSPECT
        turned, self._suspect = suspect is not self._suspect and not moved, suspect
        waited = now - state.said > stages.SAY_AGAIN and state.stage in {Stage.WAIT_HEAD, Stage.JOIN}
        if not moved and not waited and not turned:
            return
        level: Level = "error" if state.stage is Stage.FAILED else "info"
        level = "warn" if state.stage is Stage.BACKOFF or suspect else level
        seconds = f" ({now - state.since:.0f} s)" if waited and not moved else ""
        words = state.detail or f"node {self.status().member} is in the cluster with {self._gpus} GPU(s)"
        words = "all answer again" if turned and not suspect else words
        name = "suspect" if suspect else state.stage.value.lower()
        self._log(name, words + seconds, level=level, **({"again": True} if waited and not moved else {}))
        self.state = stages.said(state, now)

    def status(self) -> NodeStatus:
        """What this node is now."""
        status = NodeStatus(
            name=self._name(),
            role=self._settings.mode,
            address=self._settings.address,
            state=self.state.node_state(time.monotonic()),
            stage=self.state.stage.value,
            detail=self.state.detail or self._disk.words,
            gpus=self._gpus,
            versions=self._versions,
            pid=os.getpid(),
            restarts=len(self.state.restarts),
        )
        return self._executor.tell(status)


async def begin(settings: AgentSettings, env: Mapping[str, str], log: EventLog) -> int:
    """BANNER, the image, the address and its interface; then the agent, to its end."""
    name = settings.name or socket.gethostname()
    log("banner", f"shoal {__version__} agent, {settings.mode} {name} at {settings.address}")
    preflight.banner(log, env)
    kind = choose(settings.executor, versions())
    log("banner", f"the engine's ranks live in {'Ray' if kind is ExecutorKind.RAY else 'processes of vLLM (mp)'}")
    preflight.plugin(log, env)
    now = NodeStatus(
        name=name, role=settings.mode, address=settings.address, state=NodeState.WAITING, stage="PREFLIGHT"
    )
    told = arrival.Told(now)
    if not await arrival.wait_for_address(log, settings.address, settings.agent_port, agent_app(told.status), told):
        return 0
    env, chosen = fabric.choose(env, settings.address, fabric.interfaces())
    if chosen:
        log("preflight", chosen)
    if not ray_command.is_loopback(settings.address):
        # Once, before JOIN: a raylet's environment never changes afterwards.
        env = {**env, **await asyncio.to_thread(auto.choose, log, LocalHost(), env)}
    rpc.tidy(env)
    env = hub.by_file(env, LocalHost(), "" if settings.run_id else settings.state_dir)
    return await Agent(settings, kind, env, log).run()


def main(env: Mapping[str, str]) -> int:
    """Run the agent; returns the exit code (78: malformed settings)."""

    def prepare() -> Start:
        settings = agent_settings(env)
        checkup.demoted(settings.preflight_ignore)
        return lambda log: begin(settings, env, log)

    return run(env, prepare)
