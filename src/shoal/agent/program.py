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
# A container with `restart: unless-stopped` is started again at once, whatever the exit code: this is its brake.
UNHEALTHY_SECONDS = 60.0

Start = Callable[[EventLog], Coroutine[Any, Any, int]]


def open_log(env: Mapping[str, str]) -> EventLog:
    """The event log on standard output, as a story or as JSON (``SHOAL_LOG``); every secret we know of is masked."""
    secrets = [value for name, value in env.items() if is_secret(name)]
    files = [LocalHost().read(env[name]) for name in ("RAY_AUTH_TOKEN_PATH", "SHOAL_API_KEY_FILE") if env.get(name)]
    mask = redactor([*secrets, *(text.strip() for text in files if text)])
    return EventLog(sys.stdout, processors=[mask], render=json_line if env.get("SHOAL_LOG") == "json" else story_line)


def run(env: Mapping[str, str], prepare: Callable[[], Start], sleep: Callable[[float], None] = time.sleep) -> int:
    """Prepare, then run to the end; returns the exit code.

    Malformed settings are told in one line. Then the program stays, unhealthy, for a minute and ends with 78; one that
    `shoal up` started ends at once, for somebody is watching.
    """
    try:
        start = prepare()
    except ConfigError as error:
        open_log(env)("config", _one_line(error), level="error")
        if not env.get("SHOAL_RUN_ID"):
            sleep(UNHEALTHY_SECONDS)
        return EX_CONFIG
    log = open_log(env)
    try:
        return asyncio.run(start(log))
    except ShoalError as error:
        log("failed", _one_line(error), level="error")
        return 1


def _one_line(error: ShoalError) -> str:
    return str(error).replace("\n", "; ")
