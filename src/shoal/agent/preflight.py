"""BANNER, PREFLIGHT and CLEAN: say what was set, look at the machine, remove what an earlier run of ours left."""

import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

from shoal.facts import process
from shoal.log import MASK, EventLog, is_secret
from shoal.spec.env import TABLE, AgentSettings
from shoal.spec.env_table import UNREAD

# Variables of others that shape what happens here, by prefix.
SHOWN = ("NCCL_", "GLOO_", "UCX_", "CUDA_VISIBLE", "NVIDIA_VISIBLE", "RAY_", "VLLM_", "HF_", "HUGGING_FACE_", "OMP_")
OURS = ".shoal"


def banner(log: EventLog, env: Mapping[str, str]) -> None:
    """Every setting with its origin, secrets masked."""
    table = {row.name: row for row in TABLE if row.reader in {"agent", "both"}}
    for name, row in table.items():
        value = env.get(name, "")
        if value or row.default:
            origin = "default" if not value else "set, the default" if value == row.default else "set"
            log("banner", f"{name}={value or row.default} ({origin})")
    for name in sorted(env):
        if name.startswith(SHOWN) and name not in table:
            log("banner", f"{name}={MASK if is_secret(name) else env[name]} (set)")
    if unread := [row.name for row in UNREAD if env.get(row.name)]:
        log("banner", f"read by nothing here: {', '.join(unread)}")


def plugin(log: EventLog, env: Mapping[str, str]) -> None:
    """Warn of a network plugin that cannot be loaded: NCCL then takes its own network, and says so only at INFO."""
    path = env.get("NCCL_NET_PLUGIN", "").strip()
    if "/" in path and not os.access(path, os.R_OK):
        why = "cannot be read" if Path(path).exists() else "is not there"
        what = f"NCCL_NET_PLUGIN={path} {why}: NCCL uses its own network; correct the path, or remove the variable"
        log("preflight", what, level="warn")


def address_is_local(address: str) -> bool:
    """Whether this machine has the address now: the kernel lets us bind a socket to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def forget_head(folder: Path, head: str) -> None:
    """Remove the file by which a head refuses to start again: Ray takes it for one that still runs.

    It names the head's address, so it is of no Ray but this node's.
    """
    current = folder / "ray_current_cluster"
    try:
        if current.read_text(encoding="utf-8").strip() == head:
            current.unlink()
    except (OSError, ValueError):
        return


def clean(log: EventLog, settings: AgentSettings) -> None:
    """Remove the sessions of an earlier Ray of ours; a folder that somebody else made, or uses, is left as it is."""
    folder = Path(settings.temp_dir)
    if not folder.exists():
        folder.mkdir(parents=True, mode=0o700)
        (folder / OURS).touch()
        return
    if not (folder / OURS).exists():
        if any(folder.iterdir()):
            log("clean", f"{folder} was made by somebody else: nothing removed", level="warn")
            return
        (folder / OURS).touch()
    sessions, current = sorted(folder.glob("session_*")), folder / "ray_current_cluster"
    if not sessions and not current.exists():
        return
    # Our mark does not expire: since then, a Ray of somebody else may have begun to use the folder.
    if users := process.users(folder):
        words = process.describe(users[0])
        log("clean", f"{folder} is in use by {words}: nothing removed", level="warn")
        return
    # A head refuses to start while this file names it (Ray takes it for a head that still runs).
    current.unlink(missing_ok=True)
    for session in sessions:
        if session.is_symlink():
            session.unlink()
        else:
            shutil.rmtree(session, ignore_errors=True)
        log("clean", f"removed {session.name} of an earlier run")
