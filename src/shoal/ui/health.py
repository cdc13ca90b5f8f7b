"""``health``: whether agent or supervisor answer on this node. Docker's health check, so the standard library only."""

from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from typing import NamedTuple

TIMEOUT = 4.0  # seconds, for both addresses together; the compose files give it 5
LOOPBACK = "127.0.0.1"


class Target(NamedTuple):
    """A program's endpoint: the variable that moves its port, and the port where that is not set."""

    variable: str
    port: str


TARGETS = {"agent": Target("SHOAL_AGENT_PORT", "8700"), "serve": Target("SHOAL_SERVE_PORT", "8701")}


def look(env: Mapping[str, str], program: str) -> tuple[bool, str]:
    """Whether ``program`` answers, and a line that says so."""
    target = TARGETS[program]
    address, port = env.get("VLLM_HOST_IP", "").strip(), env.get(target.variable, "").strip() or target.port
    if not address:
        return False, "unhealthy: VLLM_HOST_IP is not set"
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        return False, f"unhealthy: {target.variable}={port!r} is no port"
    # A node's address may come later than its program, which answers on loopback meanwhile.
    answers = [_ask(program, address, int(port), TIMEOUT / 2)]
    if not answers[0][0]:
        answers.append(_ask(program, LOOPBACK, int(port), TIMEOUT / 2))
    return next((answer for answer in answers if answer[0]), answers[0])


def _ask(program: str, address: str, port: int, timeout: float) -> tuple[bool, str]:
    connection = HTTPConnection(address, port, timeout=timeout)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        told = " ".join(answer.read(2000).decode("utf-8", errors="replace").split())
    except (OSError, HTTPException, ValueError) as error:
        return False, f"unhealthy: {program} at {address}:{port}: {error or type(error).__name__}"
    finally:
        connection.close()
    well = answer.status == 200
    return well, f"{'healthy' if well else 'unhealthy'}: {program} at {address}:{port}: {told or answer.status}"


def main(env: Mapping[str, str], words: Sequence[str]) -> int:
    """Print one line; the exit code is 0 for healthy, 1 for not, 2 for a wrong call."""
    program = words[0] if words else "agent"
    if len(words) > 1 or program not in TARGETS:
        print("usage: shoal health [agent|serve]")
        return 2
    well, line = look(env, program)
    print(line)
    return 0 if well else 1
