"""The supervisor as a program: settings from the environment, an endpoint, signals."""

import asyncio
import signal
from collections.abc import Mapping
from pathlib import Path

from shoal.agent.endpoint import Endpoint, bind
from shoal.agent.program import Start, run
from shoal.agent.supervise import become_subreaper
from shoal.engine.app import engine_app
from shoal.engine.client import EngineClient
from shoal.engine.guard import read_key
from shoal.engine.keys import ensure_key
from shoal.engine.launch import Request, read_request
from shoal.engine.supervisor import Supervisor
from shoal.log import EventLog
from shoal.spec.env import ServeSettings, serve_settings


async def serve(settings: ServeSettings, request: Request, key: str, env: Mapping[str, str], log: EventLog) -> int:
    """Run the supervisor until SIGTERM; returns the exit code."""
    become_subreaper()
    (Path(settings.state_dir) / "logs").mkdir(parents=True, exist_ok=True)
    async with EngineClient(request.endpoint, key, request.model) as client:
        supervisor = Supervisor(settings, request, client, env, log)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, supervisor.stop.set)
        endpoint = Endpoint(engine_app(supervisor.status), [bind(settings.address, settings.serve_port)])
        endpoint.start()
        try:
            return await supervisor.run()
        finally:
            await endpoint.stop()


def main(env: Mapping[str, str]) -> int:
    """Run the supervisor; returns the exit code (78: malformed settings)."""

    def prepare() -> Start:
        settings = serve_settings(env)
        request = read_request(settings.engine_plan)
        if settings.api_key_file:
            ensure_key(Path(settings.api_key_file))  # in a container nobody else is there to make it
        key = read_key(env).decode()
        return lambda log: serve(settings, request, key, env, log)

    return run(env, prepare)
