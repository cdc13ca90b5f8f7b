"""The Hugging Face hub's token goes by file: vLLM and its ranks read it there, and no environment of theirs has it."""

from collections.abc import Mapping
from pathlib import Path

from shoal.host.base import Host

NAMES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
PATH = "HF_TOKEN_PATH"


def by_file(env: Mapping[str, str], host: Host, folder: str) -> dict[str, str]:
    """The environment with the token's file named, which is written to ``folder``, mode 0600.

    Where no token is set, or somebody names a file already, nothing changes.
    """
    token = next((env[name].strip() for name in NAMES if env.get(name, "").strip()), "")
    if not token or not folder or env.get(PATH):
        return dict(env)
    file = Path(folder) / "hub.token"
    file.parent.mkdir(parents=True, exist_ok=True)
    host.write(str(file), token + "\n", mode=0o600)
    return {**env, PATH: str(file)}
