"""The key that nodes of one cluster share: made from Ray's token, which every node has already; that is never sent.

It travels in plain text, as Ray's token does on the same wire: it keeps strangers out, not those who read the fabric.
"""

import hmac
from collections.abc import Mapping
from pathlib import Path

from shoal.errors import ShoalError
from shoal.host.base import Host

PURPOSE = b"shoal: between the nodes of one cluster, 1"


def derive(token: str) -> str:
    """The key that belongs to a token of Ray's."""
    return hmac.new(token.encode(), PURPOSE, "sha256").hexdigest()


def cluster_key(host: Host, env: Mapping[str, str]) -> str | None:
    """The key; None where there is no token that it could be made from. Read anew each time: it may come later."""
    path = env.get("RAY_AUTH_TOKEN_PATH", "").strip()
    if not path and env.get("RAY_AUTH_MODE", "").strip().lower() == "token":
        path = "~/.ray/auth_token"
    try:
        token = (host.read(str(Path(path).expanduser())) or "").strip() if path else ""
    except (ShoalError, RuntimeError):
        return None
    return derive(token) if token else None


def bearer(key: str | None) -> dict[str, str]:
    """The header that shows the key; none where there is no key."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def shows(header: str | None, key: str) -> bool:
    """Whether a header shows the key, compared in a time that tells nothing about it."""
    scheme, _, sent = (header or "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(sent.encode(), key.encode())
