"""The supervisor as a program: settings from the environment, an endpoint, signals."""

import asyncio
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from shoal.agent import arrival, auto, fabric, hub
from shoal.agent.endpoint import Endpoint
from shoal.agent.key import cluster_key
from shoal.agent.program import Start, run
from shoal.agent.ray_command import is_loopback
from shoal.agent.supervise import become_subreaper
from shoal.engine.app import engine_app, restart_route
from shoal.engine.client import EngineClient
from shoal.engine.guard import read_key
from shoal.engine.keys import ensure_key
from shoal.engine.launch import Request
from shoal.engine.request import obtain
from shoal.engine.supervisor import Supervisor
from shoal.engine.transport import TransportWatch, ask_agents_of
from shoal.host.local import LocalHost
from shoal.log import EventLog
from shoal.spec.env import ServeSettings, serve_settings
from shoal.state.journal import Journal, journal_file
from shoal.state.live import EngineLive
from shoal.state.status import EngineState, EngineStatus, ExecutorKind


class Desk:
    """Answers for the engine from the first moment on: address and model come before its supervisor."""

    def __init__(self, settings: ServeSettings) -> None:
        self.supervisor: Supervisor | None = None
        self.transport: TransportWatch | None = None
        self._model = settings.model_name
        self._expected = len(settings.expect)
        self._detail = ""

    def tell(self, words: str) -> None:
        """Remember what is waited for, before there is a supervisor."""
        self._detail = words

    async def status(self) -> EngineStatus:
        """The engine now."""
        if self.supervisor is not None:
            return self._with_transport(await self.supervisor.status())
        return self._waiting()

    def live(self) -> EngineLive:
        """What is known of the engine, without a question to it."""
        if self.supervisor is None:
            return EngineLive(engine=self._waiting(), at=time.time(), expected_nodes=self._expected)
        told = self.supervisor.live()
        return told.model_copy(update={"engine": self._with_transport(told.engine)})

    def _with_transport(self, engine: EngineStatus) -> EngineStatus:
        return engine.model_copy(update={"transport": self.transport.status if self.transport else None})

    def _waiting(self) -> EngineStatus:
        return EngineStatus(state=EngineState.WAITING, model=self._model, detail=self._detail)

    def restart(self, how: str) -> bool:
        """Order a restart; False where there is nothing to restart yet."""
        return self.supervisor is not None and self.supervisor.order_restart(how)

    def fault(self) -> str:
        """Why the engine stays down until somebody acts; empty while it does not."""
        return self.supervisor.fault() if self.supervisor is not None else ""


async def serve(settings: ServeSettings, key: str, env: Mapping[str, str], log: EventLog) -> int:
    """Wait for the address, look at the model, then run the supervisor until SIGTERM; returns the exit code."""
    become_subreaper()
    (Path(settings.state_dir) / "logs").mkdir(parents=True, exist_ok=True)
    remember(settings, log)
    desk = Desk(settings)
    orders = (restart_route(desk.restart, lambda: cluster_key(LocalHost(), env)),)
    app = engine_app(desk.status, desk.live, desk.fault, orders)
    if not await arrival.wait_for_address(log, settings.address, settings.serve_port, app, desk.tell):
        return 0
    desk.tell("looking at the model")
    env, _ = fabric.choose(env, settings.address, fabric.interfaces())
    env = hub.by_file(env, LocalHost(), "" if settings.run_id else settings.state_dir)
    endpoint = Endpoint(app, arrival.sockets(settings.address, settings.serve_port))
    endpoint.start()
    try:
        visible = env.get("CUDA_VISIBLE_DEVICES", "")
        settings, request = await asyncio.to_thread(obtain, settings, log, visible)
        env = await for_own_ranks(settings, request, env, log)
        async with EngineClient(request.endpoint, key, request.model) as client:
            desk.supervisor = supervisor = Supervisor(settings, request, client, env, log)
            desk.transport = watch_transport(settings, client, env, log)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, supervisor.stop.set)
            watching = asyncio.create_task(desk.transport.run())
            try:
                return await supervisor.run()
            finally:
                watching.cancel()
    finally:
        await endpoint.stop()


async def for_own_ranks(
    settings: ServeSettings, request: Request, env: Mapping[str, str], log: EventLog
) -> dict[str, str]:
    """The environment; without Ray with what an agent chooses for its ranks, for the head's live below this program."""
    if request.executor is ExecutorKind.RAY or is_loopback(settings.address):
        return dict(env)
    return {**env, **await asyncio.to_thread(auto.choose, log, LocalHost(), env)}


def watch_transport(
    settings: ServeSettings, client: EngineClient, env: Mapping[str, str], log: EventLog
) -> TransportWatch:
    """The watch over what the engine's traffic goes over, on every node that has a rank."""

    async def tokens() -> float | None:
        counters = await client.counters()
        return counters.tokens if counters else None

    addresses = [address for address, gpus in settings.expect if gpus]
    ask = ask_agents_of(addresses, settings.agent_port, lambda: cluster_key(LocalHost(), env))
    return TransportWatch(ask, tokens, log)


def remember(settings: ServeSettings, log: EventLog) -> None:
    """Keep what is said from now on in the journal."""
    name = settings.name or "engine"

    def complain(words: str) -> None:
        log("journal", words, level="warn", again=True)

    log.listeners.append(Journal(journal_file(settings.state_dir, name), name, complain).listen)


def main(env: Mapping[str, str]) -> int:
    """Run the supervisor; returns the exit code (78: malformed settings)."""

    def prepare() -> Start:
        settings = serve_settings(env)
        if settings.api_key_file:
            ensure_key(Path(settings.api_key_file))  # in a container nobody else is there to make it
        key = read_key(env).decode()
        return lambda log: serve(settings, key, env, log)

    return run(env, prepare)
