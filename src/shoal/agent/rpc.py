"""The folder of vLLM's sockets, where a container names one of its own (``VLLM_RPC_BASE_PATH``).

Engine and ranks of one node live in two containers and speak over sockets in that folder, so both mount it. vLLM leaves
its sockets there when it ends. The agent removes them before its Ray begins: no engine can run on this node then.
"""

import stat
from collections.abc import Mapping
from pathlib import Path

NAME = "VLLM_RPC_BASE_PATH"


def tidy(env: Mapping[str, str]) -> None:
    """Make the folder where it is missing, and take old sockets out of it; nothing else is touched."""
    if not env.get(NAME):
        return
    folder = Path(env[NAME])
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink(missing_ok=True)
