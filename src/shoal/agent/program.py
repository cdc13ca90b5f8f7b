"""How agent and supervisor begin and end as programs: settings, log, exit code."""

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from shoal.errors import ConfigError, ShoalError
from shoal.host.local import LocalHost
from shoal.log import EventLog, is_secret, json_line, redactor, story_line

EX_CONFIG = 78
# A container with `restart: unless-stopped` is started again at once, whatever the exit code: these are its brakes, in
# seconds. Trouble may be over soon; malformed settings wait for somebody to correct them.
PAUSE = {EX_CONFIG: 60.0, 1: 10.0}

Start = Callable[[EventLog], Coroutine[Any, Any, int]]


def open_log(env: Mapping[str, str]) -> EventLog:
    """The event log on standard output, as a story or as JSON (``SHOAL_LOG``); every secret we know of is masked."""
    secrets = [value for name, value in env.items() if is_secret(name)]
    files = [LocalHost().read(env[name]) for name in ("RAY_AUTH_TOKEN_PATH", "SHOAL_API_KEY_FILE") if env.get(name)]
    mask = redactor([*secrets, *(text.strip() for text in files if text)])
    return EventLog(sys.stdout, processors=[mask], render=json_line if env.get("SHOAL_LOG") == "json" else story_line)


def run(env: Mapping[str, str], prepare: Callable[[], Start], sleep: Callable[[float], None] = time.sleep) -> int:
    """Prepare, then run to the end; returns the exit code: 78 for malformed settings, 1 for trouble.

    Both are told in one line. Then the program stays, unhealthy, for a while; one that `shoal up` started ends at once,
    for somebody is watching.
    """
    try:
        start = prepare()
        return asyncio.run(start(open_log(env)))
    except ConfigError as error:
        code = _told(env, "config", error, EX_CONFIG)
    except ShoalError as error:
        code = _told(env, "failed", error, 1)
    if not env.get("SHOAL_RUN_ID"):
        sleep(PAUSE[code])
    return code


def _told(env: Mapping[str, str], name: str, error: ShoalError, code: int) -> int:
    open_log(env)(name, str(error).replace("\n", "; "), level="error")
    return code
