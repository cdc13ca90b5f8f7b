"""Structured events: one line for people or one JSON object for machines; secrets are masked on the way out.

An :class:`EventLog` passes each event through its processors, then writes it. The default is the story that
``docker compose logs -f`` shows::

    05:37:24 WAIT_HEAD waiting for the head at 192.168.100.1:6379: connection refused (10 s)
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TextIO

Level = Literal["info", "warn", "error"]

SECRET_NAME = re.compile(
    r"(?<!TIK)TOKEN(?!IZ)|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY|CREDENTIAL|PRIVATE_KEY", re.IGNORECASE
)
# Names that match the pattern and hold no secret: a path, a mode, a number.
NOT_SECRET = re.compile(r"(_PATH|_FILE|_MODE|_DIR|_THRESHOLD|TOKENS)$|^MAX_|_MAX_TOKENS_", re.IGNORECASE)
MASK = "********"


def is_secret(name: str) -> bool:
    """Whether a variable of this name holds a secret, by the names in use across vLLM, Ray and the hubs."""
    return bool(SECRET_NAME.search(name)) and not NOT_SECRET.search(name)


@dataclass(frozen=True)
class Event:
    """One thing that happened. ``name`` is stable and for machines, ``message`` is a sentence for people."""

    name: str
    message: str
    level: Level = "info"
    time: float = 0.0
    fields: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The event as one flat JSON object; ``time`` in seconds since the epoch."""
        head = {"time": round(self.time, 3), "level": self.level, "event": self.name, "message": self.message}
        return head | dict(self.fields)


Processor = Callable[[Event], Event]


def redactor(secrets: Iterable[str]) -> Processor:
    """A processor that masks fields with a secret's name, and the given secret values wherever they appear."""
    values = sorted((value for value in secrets if len(value) >= 8), key=len, reverse=True)

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            for secret in values:
                value = value.replace(secret, MASK)
        elif isinstance(value, Mapping):
            return {key: MASK if is_secret(str(key)) else clean(item) for key, item in value.items()}
        elif isinstance(value, (list, tuple)):
            return [clean(item) for item in value]
        return value

    def process(event: Event) -> Event:
        return replace(event, message=clean(event.message), fields=clean(event.fields))

    return process


def story_line(event: Event) -> str:
    """The event as one line for people, local time first."""
    clock = time.strftime("%H:%M:%S", time.localtime(event.time))
    mark = {"info": "", "warn": "warning: ", "error": "error: "}[event.level]
    return f"{clock} {event.name.upper():<10} {mark}{'; '.join(event.message.splitlines())}"


def json_line(event: Event) -> str:
    """The event as one JSON object on one line."""
    return json.dumps(event.as_dict(), ensure_ascii=False, default=str)


class EventLog:
    """Sends events through processors to one stream and to any number of listeners."""

    def __init__(
        self,
        stream: TextIO,
        *,
        processors: Iterable[Processor] = (),
        render: Callable[[Event], str] = story_line,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._stream = stream
        self._processors = tuple(processors)
        self._render = render
        self._clock = clock
        self.listeners: list[Callable[[Event], None]] = []
        self.unwritten = 0

    def masked(self, text: str) -> str:
        """A text as the log would say it: with every known secret masked."""
        event = Event("", text)
        for process in self._processors:
            event = process(event)
        return event.message

    def __call__(self, name: str, message: str, *, level: Level = "info", **fields: Any) -> None:
        """Record one event."""
        event = Event(name, message, level, self._clock(), fields)
        for process in self._processors:
            event = process(event)
        try:
            self._stream.write(self._render(event) + "\n")
            self._stream.flush()
        except OSError:
            self.unwritten += 1  # a full disk, a closed terminal: a program that serves outlives its log
        for listen in self.listeners:
            listen(event)
