"""Where vLLM stands in its start, read from its own log lines. Pure."""

import re
from dataclasses import dataclass, replace

GATE, PLACEMENT, WEIGHTS, COMPILE, WARM_UP, FIRST_TOKEN = (
    "gate", "placement", "weights", "compile", "warm-up", "first token",
)  # fmt: skip
PHASES = (GATE, PLACEMENT, WEIGHTS, COMPILE, WARM_UP, FIRST_TOKEN)

# The line after which a phase has begun. vLLM 0.10 to 0.33; a start that skips a line skips the phase.
BEGINS = (
    (WEIGHTS, re.compile(r"Starting to load model|Loading model from scratch")),
    (
        COMPILE,
        re.compile(r"Warming up model for the compilation|Using cache directory: .*torch_compile|Dynamo bytecode"),
    ),
    (WARM_UP, re.compile(r"Warming up done|KV cache size|Capturing CUDA graph|Graph capturing|init engine")),
    (FIRST_TOKEN, re.compile(r"Application startup complete|Starting vLLM (API )?server")),
)


def begins(line: str) -> str | None:
    """The phase that begins with this log line, or None."""
    for phase, pattern in BEGINS:
        if pattern.search(line):
            return phase
    return None


@dataclass(frozen=True)
class Timeline:
    """Phases of one start; seconds of a monotonic clock."""

    phase: str
    since: float
    done: tuple[tuple[str, float], ...] = ()

    def enter(self, phase: str, now: float) -> "Timeline":
        """The timeline with ``phase`` begun; itself where that would be a step back or none."""
        if not self.phase or PHASES.index(phase) <= PHASES.index(self.phase):
            return self
        return replace(self, phase=phase, since=now, done=(*self.done, (self.phase, now - self.since)))

    def finish(self, now: float) -> "Timeline":
        """The timeline with its last phase ended; itself where it has ended already."""
        if not self.phase:
            return self
        return replace(self, phase="", done=(*self.done, (self.phase, now - self.since)))

    def seconds(self, now: float) -> dict[str, float]:
        """Seconds per phase, the current one up to now."""
        open_phase = [(self.phase, now - self.since)] if self.phase else []
        return {name: round(value, 1) for name, value in (*self.done, *open_phase)}
