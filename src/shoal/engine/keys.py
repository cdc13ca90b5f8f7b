"""The file that holds the endpoint's API key: made once, readable by its owner only."""

import os
import secrets
import shlex
import stat
import tempfile
from pathlib import Path

from shoal.errors import ConfigError


def ensure_key(path: Path) -> None:
    """Make the key file where there is none; one that exists is kept.

    Raises:
        ConfigError: it cannot be made, is empty, or may be read by others than its owner.
    """
    try:
        if not path.exists():
            _create(path)
        mode, size = path.stat().st_mode, path.stat().st_size
    except OSError as error:
        raise ConfigError(f"cannot make the API key file {path}", why=str(error)) from error
    name = shlex.quote(str(path))
    if not stat.S_ISREG(mode):
        raise ConfigError(f"the API key file {path} is not a file")
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(
            f"the API key file {path} is open to others than its owner",
            why=f"its mode is {stat.S_IMODE(mode):04o}, expected 0600",
            fix=f"chmod 600 {name}",
        )
    if not size:
        raise ConfigError(f"the API key file {path} is empty", fix=f"rm {name}   (a new key is made at the next start)")


def _create(path: Path) -> None:
    """Write a new key and give it its name in one step, so that nobody ever reads an empty or a replaced key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp makes it 0600
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
        path.hardlink_to(part)
    except FileExistsError:
        pass  # another process was first, and its key is as good
    finally:
        Path(part).unlink(missing_ok=True)
