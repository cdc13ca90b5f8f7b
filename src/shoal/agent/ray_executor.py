"""This node's Ray: `ray start` as a child, asked by gRPC whether it serves, checked against the GCS's table."""

import asyncio
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from shoal.agent import preflight, ranks, ray_command
from shoal.agent.heart import gone
from shoal.agent.proof import Prover
from shoal.agent.raylet_socket import RayletSocket
from shoal.agent.stages import Observation, Stage
from shoal.agent.supervise import Child
from shoal.agent.talk import Handler
from shoal.agent.turns import Turns
from shoal.agent.verify import judge
from shoal.errors import ShoalError
from shoal.facts.grpc_health import REFUSED, Health, serving
from shoal.facts.ray import drain_argv, parse_drain, parse_table, table_argv
from shoal.facts.ray_logs import last_words, read_fault
from shoal.log import EventLog
from shoal.spec.env import AgentSettings
from shoal.state.status import NodeStatus


class RayExecutor:
    """One node's Ray. ``heard`` is what the head's agent said lately, ``born`` is told each new process."""

    def __init__(
        self,
        settings: AgentSettings,
        log: EventLog,
        prover: Prover,
        heard: Callable[[], NodeStatus | None],
        born: Callable[[int], None],
        folder: Path,
        name: str,
        turns: Turns,
    ) -> None:
        self._settings = settings
        self._log = log
        self._prover = prover
        self._heard = heard
        self._born = born
        self._logs = folder
        self._name = name
        self._ports = ray_command.ports_of(settings)
        self._turns = turns
        self._socket = RayletSocket()
        self._ray: Child | None = None
        self._verifier: Child | None = None
        self._node_id: str | None = None
        self._cluster_id: str | None = None
        self._mark = ""
        self._gpus = 0
        self._drained = False

    @property
    def pid(self) -> int | None:
        """`ray start`."""
        return self._ray.pid if self._ray is not None else None

    @property
    def running(self) -> bool:
        """Whether `ray start` runs."""
        return self._ray is not None and self._ray.code is None

    async def look(self, stage: Stage) -> Observation:
        """GCS and raylet, asked; the check's answer; what Ray died of."""
        head, raylet = await asyncio.gather(self._ask_head(), self._ask_raylet())
        verified, reason = self._verdict() if stage is Stage.VERIFY else (None, "")
        running = self.running
        return Observation(
            now=time.monotonic(),
            head_serving=head.serving,
            head_reason=f"{head.reason} at {self._settings.head}",
            ray_running=running,
            ray_tail="" if running or self._ray is None else last_words(self._ray.output()),
            raylet_serving=raylet.serving,
            verified=verified,
            verify_reason=reason,
            drained=self._drained,
            ray_fault=self._fault(starting=stage is Stage.JOIN),
            head_refuses=head.reason == REFUSED,
            head_gone=gone(self._cluster_id, self._heard()),
            raylet_refuses=raylet.reason == REFUSED,
            socket_trouble=self._socket.trouble(self.pid) if stage is Stage.UP else "",
        )

    def _fault(self, *, starting: bool) -> str:
        """What Ray's own processes died of; looked up while it starts and once it has ended."""
        if self._ray is None or (self.running and not starting):
            return ""
        return read_fault(Path(self._settings.temp_dir), self._ray.started)

    async def _ask_head(self) -> Health:
        address, _, port = self._settings.head.rpartition(":")
        return await serving(address.strip("[]"), int(port), timeout=1.0)

    async def _ask_raylet(self) -> Health:
        if self._ray is None:
            return Health(serving=False, reason="not started")
        return await serving(self._settings.address, self._ports.node_manager, timeout=1.0)

    def _verdict(self) -> tuple[bool | None, str]:
        if self._verifier is None or self._verifier.code is None:
            return None, ""
        try:
            table = parse_table(self._verifier.output(1_000_000))
        except ShoalError as error:
            return False, str(error)
        self._cluster_id = table.cluster_id
        self._node_id, reason = judge(table, self._settings.address, self._gpus, self._mark)
        return self._node_id is not None, reason

    def begin(self, gpus: int) -> None:
        """`ray start`."""
        self._gpus, self._mark = gpus, f"shoal-{secrets.token_hex(8)}"
        if self._settings.mode == "head":
            preflight.forget_head(Path(self._settings.temp_dir), self._settings.head)
        if words := self._prover.renew():
            self._log("nccl", words)
        # A head's raylet has a GCS of its own, which knew none before it.
        turn = self._turns.take() if self._settings.mode == "worker" else 0
        self._ports = ray_command.ports_of(self._settings).at_turn(turn)
        argv = ray_command.start_argv(sys.executable, self._settings, gpus, self._mark, turn)
        log = self._logs / f"{self._name}.ray.log"
        self._ray = Child.start(argv, env=self._child_env(), log=log, cwd=Path(self._settings.temp_dir))
        self._born(self._ray.pid)

    def verify(self) -> None:
        """Ask the GCS for its table, in a child that loads Ray."""
        if self._verifier is not None:
            return
        argv = table_argv(
            sys.executable,
            self._settings.head,
            wait=self._settings.address,
            timeout=self._settings.join_timeout,
            mark=self._mark,
        )
        log = self._logs / f".{self._name}.verify.json"
        log.unlink(missing_ok=True)
        self._verifier = Child.start(argv, env=self._child_env(), log=log)

    def _child_env(self) -> dict[str, str]:
        return ray_command.start_env(self._settings, self._prover.ranks_env())

    async def drain(self) -> None:
        """Let Ray take this node out of service."""
        if self._node_id is not None:
            argv = drain_argv(sys.executable, self._settings.head, self._node_id, deadline=5, reason="PREEMPTION")
            child = Child.start(argv, env=self._child_env(), log=self._logs / f".{self._name}.drain.json")
            await child.wait(8)
            self._say_drained(child)
            await child.stop(0.5)
        self._drained = True

    def _say_drained(self, child: Child) -> None:
        try:
            answer = parse_drain(child.output())
        except ShoalError as error:
            self._log("drain", f"Ray was not told: {' '.join(str(error).split())}; leaving all the same", level="warn")
            return
        if answer.accepted:
            self._log("drain", "Ray takes this node out of service")
        else:
            self._log("drain", f"Ray refuses to drain this node: {answer.reason}; leaving all the same", level="warn")

    async def end(self) -> None:
        """End `ray start` with all below it."""
        for child in (self._verifier, self._ray):
            if child is not None:
                await child.stop(4.0)
        self._ray = self._verifier = self._node_id = self._cluster_id = None

    def ranks(self) -> list[psutil.Process]:
        """The engine's actors below this node's Ray."""
        return ranks.engine_processes(self.pid)

    def release(self) -> None:
        """Ray itself watches its actors."""

    def orders(self) -> Mapping[str, Handler]:
        """None: Ray starts the ranks."""
        return {}

    def tell(self, status: NodeStatus) -> NodeStatus:
        """The status with Ray's ids."""
        return status.model_copy(update={"ray_node_id": self._node_id, "ray_cluster_id": self._cluster_id})
