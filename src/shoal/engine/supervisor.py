"""The engine supervisor: looks, lets ``recover.step`` decide, and does what was decided."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from shoal.agent.key import cluster_key
from shoal.agent.supervise import reap_orphans
from shoal.engine import gate, launch, phases, recover
from shoal.engine.agents import ask_agents
from shoal.engine.books import Books
from shoal.engine.clear import Clearer, Orderer
from shoal.engine.client import EngineClient
from shoal.engine.executor import executor_of
from shoal.engine.incident import Incidents
from shoal.engine.lock import Ownership
from shoal.engine.nodes import Nodes
from shoal.engine.planned import drained, hold_back, renew
from shoal.engine.probe import TokenWatch
from shoal.engine.recover import Action, Restart, Rules, Seen, Stage, State
from shoal.engine.server import FAULT_GRACE, GRACE, Server
from shoal.engine.show import VIEW, shown
from shoal.engine.watch import WEDGED
from shoal.host.local import LocalHost
from shoal.log import EventLog
from shoal.spec.env import ServeSettings
from shoal.state.journal import journal_file
from shoal.state.live import EngineLive
from shoal.state.status import EngineState, EngineStatus

QUICK_PROBE_SECONDS = 3.0
# Seconds between two looks: short where somebody waits, a second while all is well.
PACE = {Stage.SERVE: 1.0, Stage.FAILED: 1.0, Stage.STANDBY: 1.0}
STOP_LIMIT = 5.0
TELL_AGAIN = 5.0


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
        folder = Path(settings.state_dir)
        self._settings = settings
        self._request = request
        self._client = client
        self._log = log
        self._folder = folder
        self._env = dict(env)
        self._rules = Rules(settings.restarts, settings.drain_timeout, settings.restart_window)
        self._orders = Orderer(settings.agent_port, self.key)
        name, head = settings.name or "engine", settings.head.rpartition(":")[0].strip("[]")
        self._journal = journal_file(folder, name)
        self._owner = Ownership(folder, name, settings.address, head, self._orders)
        self._executor = executor_of(settings, request, env, self._orders)
        self._server = Server(settings, request, self._executor, log)
        self._books = Books(settings, env, log)
        self._clearer = Clearer(self._books, self._orders, log)
        self._incidents = Incidents(folder, self._orders, client, self._server, log)
        self._watch = TokenWatch(client)
        self._nodes = Nodes(settings.lost_after)
        self._work: asyncio.Task[str] | None = None
        self._first: asyncio.Task[bool] | None = None
        self._restart = Restart.NONE
        self._incident = self._last_fault = ""
        self._told = (EngineState.WAITING, "")
        self._told_at = float("-inf")
        self.state = recover.first(time.monotonic())
        self.stop = asyncio.Event()
        self._wake = asyncio.Event()

    def key(self) -> str | None:
        """The cluster's key."""
        return cluster_key(LocalHost(), self._env)

    async def run(self) -> int:
        """Live until told to stop; returns the exit code."""
        try:
            while self.state.stage is not Stage.STOPPED:
                seen = await self._look()
                before = self.state
                self.state, actions = recover.step(before, seen, self._rules)
                await self._moved(before)
                for action in actions:
                    self._act(action)
                self._tell()
                await self._pause()
        finally:
            await self._watch.end()
            await self._server.end()
            await self._books.close()
            await self._owner.release()
        return 0

    async def _look(self) -> Seen:
        # The driver lives on this node, which may offer no GPU and so not be expected.
        addresses = list(dict.fromkeys([*(address for address, _ in self._settings.expect), self._settings.address]))
        answers, other = await asyncio.gather(ask_agents(addresses, self._settings.agent_port), self._owner.look())
        now = time.monotonic()
        self._nodes = self._nodes.asked(answers, now)
        self._server.follow()
        if self._nodes.hushed:
            self._watch.excuse()
        restart, self._restart = self._restart, Restart.NONE
        done, held = self._outcome()
        return Seen(
            now=now,
            stop=self.stop.is_set(),
            restart=restart,
            other=other,
            gate=self._gate(now),
            unchecked=self._nodes.unchecked,
            ending=self._server.ending(),
            lost=self._nodes.lost(now, self._watch.tokens.last),
            token=self._has_first_token(),
            wedged=self._watch.tokens.wedged(now, self._settings.wedged_after),
            log_moved=self._server.log_moved,
            done=done,
            held=held,
            dice=random.random(),  # noqa: S311 (spreads restarts, keeps no secret)
        )

    def _gate(self, now: float) -> str:
        verdict = gate.judge(self._settings.expect, self._nodes.view(now), self._executor.kind)
        if verdict.open and (why := self._executor.shut()):
            return why
        if verdict.open and self._orders.allowed and not self._owner.sure:
            return "the head's agent has not said yet whether another supervisor has the engine"
        return verdict.reason

    def _has_first_token(self) -> bool:
        """Whether the first token of this start has come; asked for from the moment on at which the server listens."""
        if self.state.stage is not Stage.START or not self._server.listens():
            return False
        if self._first is None:
            self._first = asyncio.create_task(self._watch.first())
        if not self._first.done():
            return False
        produced, self._first = self._first.result(), None
        return produced

    def _outcome(self) -> tuple[bool, str]:
        """Whether the work of this stage is over, and who still holds GPUs after it."""
        if self._work is None or not self._work.done():
            return False, ""
        work, self._work = self._work, None
        if work.cancelled():
            return True, ""
        if error := work.exception():
            self._log("trouble", f"{self.state.stage.value}: {error!r}", level="error")
            return True, f"it could not be looked at: {error!r}" if self.state.stage is Stage.CLEAR else ""
        return True, work.result()

    async def _moved(self, before: State) -> None:
        """What goes with a change of stage, whatever the stages do."""
        now = self.state
        if now.stage is before.stage:
            return
        if self._work is not None and now.stage in {Stage.END, Stage.SAVE}:
            self._work.cancel()
            self._work = None
        if before.stage is Stage.START and self._first is not None:
            self._first.cancel()
            self._first = None
        if now.stage is Stage.SAVE:
            self._last_fault = now.why
        if now.stage is Stage.SERVE:
            self._server.first_token()
            self._watch.begin()
        if now.stage is Stage.GATE and before.stage is not Stage.CLEAR:
            self._server.timeline = phases.Timeline(phases.GATE, time.monotonic())
        if now.stage is Stage.FAILED:
            self._server.timeline = self._server.timeline.finish(time.monotonic())

    def _act(self, action: Action) -> None:
        if action is Action.LAUNCH:
            hold_back(self._folder, on=False)
            self._nodes = self._executor.launch(self._nodes)
            self._log("gate", f"open: {len(self._nodes.launched)} node(s), all as expected")
            self._server.start(self._nodes)
            return
        works: dict[Action, Callable[[], Coroutine[Any, Any, str]]] = {
            Action.CLEAR: self._clear,
            Action.DRAIN: self._drain,
            Action.SAVE: self._save,
            Action.END: self._end,
            Action.RENEW: self._renew,
        }
        if action in works:
            self._work = asyncio.create_task(works[action]())

    async def _clear(self) -> str:
        nodes = self._nodes
        cleared = await self._clearer.clear(nodes.reachable, nodes.unsure)
        if not cleared.held:
            self._nodes = self._nodes.checked(nodes.raylets)
        return cleared.held

    async def _drain(self) -> str:
        hold_back(self._folder, on=True)
        await drained(self._client)
        return ""

    async def _save(self) -> str:
        self._open_books()
        status = self._status().model_dump_json(indent=2) + "\n"
        saved = await self._incidents.save(self.state.why, status, self._nodes.reachable, self._journal)
        self._incident = str(saved or "")
        return ""

    async def _end(self) -> str:
        """End the server, then every rank through the agents; what is verified now need not be asked at the gate."""
        launched = bool(self._nodes.launched)
        self._open_books()
        await self._watch.end()
        await self._server.end(GRACE if self.state.planned or self.state.stopping else FAULT_GRACE)
        self._nodes = self._nodes.gone()
        hold_back(self._folder, on=False)
        if not launched:
            return ""
        if not self.state.stopping:
            return await self._clear()
        try:
            await asyncio.wait_for(self._clearer.clear(self._nodes.reachable, {}), STOP_LIMIT)
        except TimeoutError:
            self._log("end", f"ranks were not verified gone within {STOP_LIMIT:g} s", level="warn")
        return ""

    def _open_books(self) -> None:
        """Ray will be asked who holds GPUs, once the engine has ended."""
        if self._nodes.launched and self._nodes.unsure and not self.state.stopping:
            self._books.open()

    async def _renew(self) -> str:
        workers = [
            address for address, node in self._nodes.words.items() if node.status.role == "worker"
        ]  # the head keeps its GCS: every node would have to join anew with it
        await renew(workers, lambda: self._nodes, self._orders, self._log, self._settings.join_timeout)
        return ""

    def _tell(self) -> None:
        """Say what has changed; a wait that has found another reason at most every few seconds."""
        state, detail = self._view()
        other = detail not in {"", self._told[1]} and time.monotonic() - self._told_at > TELL_AGAIN
        if state is not self._told[0] or (other and state is EngineState.WAITING):
            bad = state in {EngineState.FAILED, EngineState.UNREADY, EngineState.RESTARTING}
            words = {EngineState.STARTING: "vLLM is loading", EngineState.READY: "tokens are produced"}
            self._log(state.value, detail or words.get(state, ""), level="warn" if bad else "info")
            self._told, self._told_at = (state, detail), time.monotonic()

    def _view(self, produced: bool | None = None) -> tuple[EngineState, str]:
        """What is told of the engine; ``produced`` is the answer to a question for a token that was just asked."""
        if self.state.stage is not Stage.SERVE:
            return shown(self.state), self.state.detail
        now = time.monotonic()
        proven = self._nodes.proven(now, self._watch.tokens.last)
        verdict = gate.judge(self._settings.expect, proven, self._executor.kind)
        if not self._server.running:
            return EngineState.UNREADY, "the server has ended"
        if not verdict.open:
            return EngineState.UNREADY, verdict.reason
        if produced is False or not self._watch.tokens.producing:
            return EngineState.UNREADY, "no token comes on request"
        return VIEW[Stage.SERVE], ""

    async def _pause(self) -> None:
        reap_orphans()
        pace, end = PACE.get(self.state.stage, 0.2), time.monotonic()
        ran = self._server.running
        while (left := end + pace - time.monotonic()) > 0 and not self.stop.is_set() and self._server.running is ran:
            try:
                await asyncio.wait_for(self._wake.wait(), min(0.2, left))
            except TimeoutError:
                continue
            self._wake.clear()
            return
        if self.stop.is_set():
            await asyncio.sleep(0.05)

    def order_restart(self, how: str) -> bool:
        """Restart, as ordered: ``drain``, ``now`` or ``rolling``.

        Raises:
            ValueError: it is none of these.
        """
        if not how:
            raise ValueError(how)
        self._restart = Restart(how)
        self._log("order", f"a restart was ordered: {how}")
        self._wake.set()
        return True

    def fault(self) -> str:
        """Why the engine stays down until somebody acts; empty while it does not."""
        return self.state.detail or "gave up" if self.state.stage is Stage.FAILED else ""

    async def status(self) -> EngineStatus:
        """The engine now: ``ready`` is said of a token that was seen after the question came, asked for if need be."""
        produced: bool | None = None
        if self.state.stage is Stage.SERVE:
            asked = time.monotonic()
            try:
                await asyncio.wait_for(self._watch.look(asked, QUICK_PROBE_SECONDS), QUICK_PROBE_SECONDS + 1)
            except TimeoutError:
                produced = False
            produced = produced is None and self._watch.tokens.producing_since(asked)
        return self._status(produced)

    def live(self) -> EngineLive:
        """What is known now, without a question to the engine."""
        now, tokens, probes = time.monotonic(), self._watch.tokens, self._watch.probes
        serves = self.state.stage is Stage.SERVE
        stuck = bool(tokens.wedged(now, self._settings.wedged_after))
        return EngineLive(
            engine=self._status(),
            at=time.time(),
            serving=self._watch.served.live(now) if serves else None,
            endpoint=self._request.endpoint,
            expected=dict(self._settings.expect),
            expected_nodes=len(self._settings.expect),
            present_nodes=gate.present(self._settings.expect, self._nodes.proven(now, tokens.last)),
            probe_s=probes.seconds,
            probes_total=probes.total,
            probes_failed_total=probes.failed,
            wedged=stuck if serves else self._last_fault.startswith(WEDGED),
            breaker_open=bool(self.fault()),
        )

    def _status(self, produced: bool | None = None) -> EngineStatus:
        state, detail = self._view(produced)
        now, timeline = time.monotonic(), self._server.timeline
        age = self._watch.tokens.age(now)
        return EngineStatus(
            state=state,
            model=self._request.model,
            executor=self._executor.kind,
            phase=timeline.phase,
            phases=timeline.seconds(now),
            last_token_age_s=None if age is None else round(age, 1),
            detail=detail,
            restarts=self.state.restarts,
            last_fault=self._last_fault,
            incident=self._incident,
            pid=self._server.pid,
        )
