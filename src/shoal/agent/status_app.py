"""The HTTP face of agent and supervisor: ``/healthz``, ``/readyz``, ``/status``, ``/metrics``.

Nothing here is secret, and nothing acts.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route


class Status(Protocol):
    """A status document: where it stands, and a sentence about it."""

    @property
    def state(self) -> str:
        """The state's name."""
        ...

    @property
    def detail(self) -> str:
        """One sentence, empty where there is nothing to say."""
        ...

    def model_dump_json(self) -> str:
        """The whole document."""
        ...


S = TypeVar("S", bound=Status)


class _Collector:
    """Metrics of one moment; nothing is kept between two scrapes."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """The metrics."""
        yield from self._metrics


def status_app(
    ask: Callable[[], Awaitable[S]],
    is_ready: Callable[[S], bool],
    metrics: Callable[[], Awaitable[Iterable[Metric]]],
    fault: Callable[[], str],
    more: Sequence[Route] = (),
) -> Starlette:
    """The application; ``ask`` is awaited for ``/readyz`` and ``/status``, ``metrics`` for ``/metrics``.

    ``/healthz`` says that the program lives, or, where it has given up, why: ``fault`` is then not empty.
    """

    async def healthz(_: Request) -> Response:
        why = fault()
        return PlainTextResponse(f"failed: {why}\n", 503) if why else PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        now = await ask()
        if is_ready(now):
            return PlainTextResponse("ready\n")
        return PlainTextResponse(f"{now.state}: {now.detail}\n", 503)

    async def document(_: Request) -> Response:
        return Response((await ask()).model_dump_json(), media_type="application/json")

    async def prometheus(_: Request) -> Response:
        registry = CollectorRegistry()
        registry.register(_Collector(await metrics()))
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/status", document),
            Route("/metrics", prometheus),
            *more,
        ]
    )
