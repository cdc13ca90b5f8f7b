"""The page's questions to the model: handed on to the engine's API with the key, which the browser never has."""

from collections.abc import AsyncIterator
from typing import Literal

import aiohttp
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response, StreamingResponse

from shoal.agent.key import bearer

MOST_AT_ONCE = 8
WHOLE, CONNECT = 300.0, 3.0


class Message(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["user", "assistant"]
    content: str = Field(min_length=1)


class Question(BaseModel):
    """What the page may ask for; everything else is decided here."""

    model_config = ConfigDict(extra="forbid")

    messages: tuple[Message, ...] = Field(min_length=1, max_length=64)
    max_tokens: int = Field(512, ge=1, le=4096)

    def body(self, model: str) -> dict[str, object]:
        """The request as the engine's API wants it."""
        return self.model_dump() | {"model": model, "stream": True, "stream_options": {"include_usage": True}}


class Chat:
    """Hands questions on, a few at once."""

    def __init__(self) -> None:
        self._open = 0

    async def answer(self, endpoint: str, question: Question, model: str, key: str | None) -> Response:
        """The engine's stream of events, as it comes; a refusal with its words."""
        if self._open >= MOST_AT_ONCE:
            return JSONResponse({"error": f"{MOST_AT_ONCE} questions are being answered: try again"}, 429)
        http = aiohttp.ClientSession(
            headers=bearer(key),
            timeout=aiohttp.ClientTimeout(total=WHOLE, sock_connect=CONNECT),
            trust_env=False,
        )
        self._open += 1
        try:
            reply = await http.post(f"{endpoint}/chat/completions", json=question.body(model))
            if reply.status == 200:
                return StreamingResponse(self._pieces(http, reply), media_type="text/event-stream")
            why = (await reply.content.read(2000)).decode(errors="replace")
            refusal = JSONResponse({"error": f"the engine answered {reply.status}: {why}"}, 502)
        except (aiohttp.ClientError, TimeoutError) as error:
            refusal = JSONResponse({"error": f"the engine does not answer: {str(error) or type(error).__name__}"}, 502)
        except BaseException:
            await self._end(http)
            raise
        await self._end(http)
        return refusal

    async def _end(self, http: aiohttp.ClientSession) -> None:
        self._open -= 1
        await http.close()

    async def _pieces(self, http: aiohttp.ClientSession, reply: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        # A browser that goes away ends this, and with the connection vLLM ends the request.
        try:
            async for piece in reply.content.iter_any():
                yield piece
        except (aiohttp.ClientError, TimeoutError):
            yield b'data: {"error": {"message": "the engine broke the answer off"}}\n\n'
        finally:
            await self._end(http)
