"""``shoal restart``: the supervisor is told to, and it is watched until a token comes again."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from shoal.agent.key import bearer
from shoal.errors import HostError, NotRunning, ShoalError, StartFailed
from shoal.ops.where import Reach
from shoal.state.status import EngineState, EngineStatus

PATIENCE = 8.0
PACE = 0.5  # seconds between two looks
# No proxy of the desktop's is asked for a loopback address.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Supervisor(Protocol):
    """The supervisor of a cluster, wherever it is."""

    def status(self) -> EngineStatus:
        """The engine as it says."""
        ...

    def order(self, how: str) -> None:
        """Order a restart: ``drain``, ``now`` or ``rolling``."""
        ...


@dataclass(frozen=True)
class Near:
    """A supervisor that answers here; without the cluster's key it takes no order."""

    url: str
    key: str | None

    @classmethod
    def of(cls, where: Reach) -> "Near":
        """The supervisor of a cluster."""
        return cls(where.serve_url, where.key)

    def status(self) -> EngineStatus:
        """The engine as it says.

        Raises:
            NotRunning: it does not answer.
        """
        try:
            with OPENER.open(f"{self.url}/status", timeout=PATIENCE) as reply:
                return EngineStatus.model_validate_json(reply.read())
        except (OSError, ValueError) as error:
            raise self._silent(error) from error

    def order(self, how: str) -> None:
        """Order a restart.

        Raises:
            NotRunning: it does not answer.
            ShoalError: it refuses.
        """
        if self.key is None:
            why = "without Ray's token the supervisor cannot know who gives the order"
            fix = "restart its container instead: docker compose restart vllm"
            raise ShoalError("the order cannot be given", why=why, fix=fix)
        headers = {"Content-Type": "application/json", **bearer(self.key)}
        body = json.dumps({"how": how}).encode()
        request = urllib.request.Request(f"{self.url}/orders/restart", body, headers)  # noqa: S310
        try:
            OPENER.open(request, timeout=PATIENCE).close()
        except urllib.error.HTTPError as error:
            why = error.read().decode(errors="replace").strip()
            raise ShoalError(f"the supervisor answers {error.code}", why=why, fix="shoal status") from error
        except OSError as error:
            raise self._silent(error) from error

    def _silent(self, error: Exception) -> NotRunning:
        return NotRunning(f"the supervisor at {self.url} does not answer", why=str(error), fix="shoal status")


def restart(supervisor: Supervisor, how: str, show: Callable[[str], None], patience: float, pace: float = PACE) -> None:
    """Order a restart and wait until a token comes again.

    Raises:
        NotRunning: there is no supervisor.
        ShoalError: the supervisor refuses.
        StartFailed: no token came in time, or the engine gave up.
    """
    before = supervisor.status().restarts
    supervisor.order(how)
    end, said = time.monotonic() + patience, ""
    while time.monotonic() < end:
        now = _look(supervisor)
        words = now if isinstance(now, str) else " ".join(filter(None, (now.state.value, now.phase, now.detail)))
        if words != said:
            said = words
            show(words)
        if isinstance(now, EngineStatus) and now.restarts > before:
            if now.state is EngineState.READY:
                return
            if now.state is EngineState.FAILED:
                raise StartFailed("the engine did not come up again", why=now.detail, fix="shoal events --since 1h")
        time.sleep(pace)
    raise StartFailed(f"no token within {patience:g} s", why=said, fix="shoal status")


def _look(supervisor: Supervisor) -> EngineStatus | str:
    """The engine; or why its host cannot be asked just now: the order is given, and a broken line heals."""
    try:
        return supervisor.status()
    except HostError as error:
        return error.what
