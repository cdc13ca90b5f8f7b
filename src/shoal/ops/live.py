"""The cluster as the head's agent sees it, asked again and again."""

from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

from shoal.errors import NotRunning, ShoalError
from shoal.state.live import ClusterLive

PATIENCE = aiohttp.ClientTimeout(total=10.0, connect=2.0)
LONGEST = 1 << 23
WRONG_KEY = "problem="


class LiveSource:
    """Asks the head's agent, in a session that the API key opens. An async context manager."""

    def __init__(self, agent_url: str, key_file: str) -> None:
        self._url = agent_url.rstrip("/")
        self._key_file = key_file
        # Unsafe jar: it keeps cookies of an address without a name, which the head's is.
        self._http = aiohttp.ClientSession(
            timeout=PATIENCE, trust_env=False, cookie_jar=aiohttp.CookieJar(unsafe=True), max_line_size=65536
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the session as well: the agent remembers a bounded number of them."""
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            if len(self._http.cookie_jar):
                await self._post("/logout", {})
        await self._http.close()

    async def look(self) -> ClusterLive:
        """The cluster now.

        Raises:
            ShoalError: no answer, the key is not the cluster's, or the answer is none of an agent's.
        """
        try:
            found = await self._ask()
            if found is None:
                await self._enter()
                found = await self._ask()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise NotRunning(
                f"the head's agent does not answer at {self._url}",
                why=str(error) or type(error).__name__,
                fix="shoal status",
            ) from error
        if found is None:
            raise ShoalError(f"the head's agent at {self._url} lets nobody in", fix="shoal logs")
        try:
            return ClusterLive.model_validate_json(found)
        except ValueError as error:
            raise ShoalError(
                f"{self._url} answers, but not as a shoal agent of this version", why=str(error).splitlines()[0]
            ) from error

    async def _ask(self) -> bytes | None:
        """The document; None where a session is needed first."""
        async with self._http.get(f"{self._url}/api/live", allow_redirects=False) as reply:
            if reply.status == 401:
                return None
            reply.raise_for_status()
            found = b""
            async for part in reply.content.iter_any():  # one read gives what has come so far, not all
                found += part
                if len(found) > LONGEST:
                    raise ShoalError(f"{self._url} answers with more than {LONGEST} bytes", fix="shoal logs")
            return found

    async def _enter(self) -> None:
        led_to = await self._post("/login", {"key": self._key()})
        if WRONG_KEY in led_to:
            raise ShoalError(
                f"the head's agent at {self._url} does not take the key",
                why=f"{self._key_file} is not this cluster's key, or wrong ones were tried too often",
                fix="shoal status   # its last lines name the key's file",
            )

    async def _post(self, path: str, form: dict[str, str]) -> str:
        """Send a form as the page does; returns where it leads."""
        headers = {"Origin": self._url}
        async with self._http.post(f"{self._url}{path}", data=form, headers=headers, allow_redirects=False) as reply:
            return reply.headers.get("Location", "")

    def _key(self) -> str:
        try:
            return Path(self._key_file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ShoalError(
                f"cannot read the API key in {self._key_file}", why=error.strerror or str(error)
            ) from error


async def look_once(agent_url: str, key_file: str) -> ClusterLive:
    """The cluster now, in a session for this one look.

    Raises:
        ShoalError: as :meth:`LiveSource.look`.
    """
    async with LiveSource(agent_url, key_file) as source:
        return await source.look()
