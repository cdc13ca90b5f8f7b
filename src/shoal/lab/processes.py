"""Which processes of a host play which role. Roles are told by command lines, as an operator would tell them."""

import re
from collections.abc import Sequence

import psutil

from shoal.errors import UsageError
from shoal.lab.record import HostRecord
from shoal.ops import sweep
from shoal.spec.nearest import did_you_mean

# Title or command line of the process, by role. Ray's actors are titled by class and method.
ROLES = {
    "agent": re.compile(r"-m shoal(\.lab\.clock \S+)? agent$"),
    "supervisor": re.compile(r"-m shoal(\.lab\.clock \S+)? serve$"),
    "raylet": re.compile(r"/raylet/raylet( |$)"),
    "gcs": re.compile(r"/gcs/gcs_server( |$)"),
    "api": re.compile(r"-m (vllm\.entrypoints\.openai\.api_server|shoal\.lab\.sim\.server)( |$)"),
    "engine": re.compile(r"^(VLLM|SIMULATED)::EngineCore"),
    "rank": re.compile(r"^(VLLM::|ray::)(Simulated)?(Ray)?Worker"),
}
HEAD_ONLY = frozenset({"gcs", "supervisor", "api", "engine"})


def check_role(name: str) -> str:
    """The role itself, or UsageError with the nearest."""
    if name not in ROLES:
        raise UsageError(f'no role "{name}"', why=did_you_mean(name, ROLES), fix=f"one of: {', '.join(ROLES)}")
    return name


def plays(role: str, argv: Sequence[str]) -> bool:
    """Whether a process of that command line plays the role. The wrapper that starts a service is not the service."""
    words = " ".join(argv).strip()
    return not words.startswith("unshare ") and ROLES[role].search(words) is not None


def of_host(host: HostRecord, boot_id: str) -> list[psutil.Process]:
    """All processes of a host, its first one included; none while it is off."""
    first = host.boot and sweep.alive(host.boot, boot_id)
    if not first:
        return []
    try:
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def find(host: HostRecord, boot_id: str, role: str) -> list[psutil.Process]:
    """The processes of a host that play a role, living ones only."""
    return [process for process in of_host(host, boot_id) if plays(role, command_line(process))]


def command_line(process: psutil.Process) -> list[str]:
    """The command line; empty where the process has ended."""
    try:
        return [] if process.status() == psutil.STATUS_ZOMBIE else process.cmdline()
    except psutil.NoSuchProcess:
        return []
