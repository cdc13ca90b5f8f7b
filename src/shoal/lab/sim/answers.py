"""What the simulated engine answers: words that follow from the prompt alone, so that a client can check them. Pure."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

MODEL = "simulated"


def token(prompt: str, index: int) -> str:
    """The token at that place of the answer."""
    digest = hashlib.sha256(f"{index}\0{prompt}".encode()).hexdigest()[:6]
    return digest if index == 0 else f" {digest}"


def answer(prompt: str, tokens: int) -> str:
    """The whole answer of that many tokens."""
    return "".join(token(prompt, index) for index in range(tokens))


def chat_prompt(messages: Sequence[Mapping[str, Any]]) -> str:
    """The prompt that a chat is."""
    return "\n".join(f"{message.get('role', '')}: {message.get('content', '')}" for message in messages)


def prompt_tokens(prompt: str) -> int:
    """How many tokens a prompt counts for: its words."""
    return len(prompt.split())
