"""``shoal restart``: the supervisor is told to, and it is watched until a token comes again."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping

from shoal.agent.key import bearer, cluster_key
from shoal.errors import NotRunning, ShoalError, StartFailed
from shoal.host.local import LocalHost
from shoal.ops import local
from shoal.ops.snapshot import token_file
from shoal.state.status import EngineState, EngineStatus

PATIENCE = 8.0
# No proxy of the desktop's is asked for a loopback address.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def target(env: Mapping[str, str]) -> tuple[str, str | None]:
    """Where the supervisor answers, and the cluster's key: of the local cluster, else of this container.

    Raises:
        NotRunning: there is neither.
    """
    host = LocalHost()
    if (record := local.running(env)) is not None:
        return record.serve_url, cluster_key(host, {"RAY_AUTH_TOKEN_PATH": token_file(record)})
    address = env.get("VLLM_HOST_IP", "").strip()
    if not address:
        raise NotRunning("nothing is up", fix="shoal up --local")
    port = env.get("SHOAL_SERVE_PORT", "").strip() or "8701"
    return f"http://{f'[{address}]' if ':' in address else address}:{port}", cluster_key(host, env)


def restart(env: Mapping[str, str], how: str, show: Callable[[str], None], patience: float) -> None:
    """Order a restart and wait until a token comes again.

    Raises:
        NotRunning: there is no supervisor.
        ShoalError: the supervisor refuses.
        StartFailed: no token came in time, or the engine gave up.
    """
    url, key = target(env)
    before = _status(url).restarts
    _order(url, key, how)
    end, said = time.monotonic() + patience, ""
    while time.monotonic() < end:
        now = _status(url)
        words = " ".join(word for word in (now.state.value, now.phase, now.detail) if word)
        if words != said:
            said = words
            show(words)
        if now.restarts > before and now.state is EngineState.READY:
            return
        if now.state is EngineState.FAILED and now.restarts > before:
            raise StartFailed("the engine did not come up again", why=now.detail, fix="shoal events --since 1h")
        time.sleep(0.5)
    raise StartFailed(f"no token within {patience:g} s", why=said, fix="shoal status")


def _order(url: str, key: str | None, how: str) -> None:
    if key is None:
        why = "without Ray's token the supervisor cannot know who gives the order"
        fix = "restart its container instead: docker compose restart vllm"
        raise ShoalError("the order cannot be given", why=why, fix=fix)
    headers = {"Content-Type": "application/json", **bearer(key)}
    request = urllib.request.Request(f"{url}/orders/restart", json.dumps({"how": how}).encode(), headers)  # noqa: S310
    try:
        OPENER.open(request, timeout=PATIENCE).close()
    except urllib.error.HTTPError as error:
        raise ShoalError(
            f"the supervisor answers {error.code}", why=error.read().decode(errors="replace").strip()
        ) from error
    except OSError as error:
        raise NotRunning(f"the supervisor at {url} does not answer", why=str(error), fix="shoal status") from error


def _status(url: str) -> EngineStatus:
    try:
        with OPENER.open(f"{url}/status", timeout=PATIENCE) as reply:
            return EngineStatus.model_validate_json(reply.read())
    except (OSError, ValueError) as error:
        raise NotRunning(f"the supervisor at {url} does not answer", why=str(error), fix="shoal status") from error
