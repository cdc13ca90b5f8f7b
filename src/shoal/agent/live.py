"""``GET /live``: what moves on this node, for the status page, the terminal view and Prometheus.

Open as ``/status`` is. What a check has read, though, may hold words of other programs: evidence and fix of a finding
are for those who show the cluster's key.
"""

from collections.abc import Callable, Iterable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shoal.agent.heart import Heart
from shoal.agent.key import shows
from shoal.agent.readings import Readings
from shoal.agent.talk import Board
from shoal.checks.base import Finding, Status
from shoal.state.live import FindingLive, HeartbeatLive, NodeLive
from shoal.state.status import NodeStatus


def bad(findings: Iterable[Finding]) -> tuple[FindingLive, ...]:
    """What of the findings somebody should see."""
    return tuple(
        FindingLive(
            id=one.id,
            status="FAIL" if one.status is Status.FAIL else "WARN",
            severity=one.severity,
            title=one.title,
            evidence=one.evidence,
            fix=one.fix,
        )
        for one in findings
        if one.status in {Status.FAIL, Status.WARN}
    )


def without_evidence(live: NodeLive) -> NodeLive:
    """The document for those who did not show the key."""
    kept = tuple(one.model_copy(update={"evidence": "", "fix": ""}) for one in live.findings)
    return live.model_copy(update={"findings": kept})


def beats(board: Board, heart: Heart) -> tuple[HeartbeatLive, ...]:
    """Who was heard, and how long ago: on the head every worker, on a worker the head."""
    heard = [*board.ages(), *filter(None, [heart.heard()])]
    return tuple(HeartbeatLive(name=one.name, address=one.address, age_s=round(age, 3)) for one, age in heard)


class Live:
    """Puts the document together."""

    def __init__(
        self,
        status: Callable[[], NodeStatus],
        readings: Readings,
        findings: Callable[[], tuple[Finding, ...]],
        heartbeats: Callable[[], tuple[HeartbeatLive, ...]],
    ) -> None:
        self._status = status
        self._readings = readings
        self._findings = findings
        self._heartbeats = heartbeats

    async def look(self) -> NodeLive:
        """The node now."""
        read = await self._readings.get()
        return NodeLive(
            node=self._status(),
            at=read.at,
            gpus=read.gpus,
            hcas=read.hcas,
            findings=bad(self._findings()),
            heartbeats=self._heartbeats(),
        )

    def route(self, key: Callable[[], str | None]) -> Route:
        """``GET /live``."""

        async def live(request: Request) -> Response:
            told, known = await self.look(), key()
            if known is not None and not shows(request.headers.get("authorization"), known):
                told = without_evidence(told)
            return Response(told.model_dump_json(), media_type="application/json")

        return Route("/live", live)
