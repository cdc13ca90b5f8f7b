"""The one reader of the process environment."""

import os
from pathlib import Path


def environ() -> dict[str, str]:
    """A copy of the environment; callers pass it on, nobody else reads it."""
    return dict(os.environ)


def state_dir(env: dict[str, str]) -> Path:
    """Where shoal remembers: ``SHOAL_STATE_DIR``, else XDG's state folder."""
    if own := env.get("SHOAL_STATE_DIR"):
        return Path(own).expanduser().absolute()
    base = env.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "shoal"


def cache_dir(env: dict[str, str]) -> Path:
    """Where shoal keeps what it can make again: ``SHOAL_CACHE_DIR``, else XDG's cache folder."""
    if own := env.get("SHOAL_CACHE_DIR"):
        return Path(own).expanduser().absolute()
    base = env.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "shoal"
