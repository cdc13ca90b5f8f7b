"""Is a token to be had? Pure: the supervisor feeds what it saw, this says what is known."""

from dataclasses import dataclass, replace

PROBE_EVERY = 10.0


@dataclass(frozen=True)
class Tokens:
    """What is known of tokens; seconds of a monotonic clock. ``counter`` is vLLM's own."""

    last: float | None = None
    counter: float | None = None
    failed: float | None = None

    def counted(self, counter: float | None, now: float) -> "Tokens":
        """After a look at vLLM's counter: a counter that moved is a token seen."""
        if counter is None or counter == self.counter:
            return self
        moved = self.counter is not None and counter > self.counter
        return replace(self, counter=counter, last=now if moved else self.last, failed=None if moved else self.failed)

    def probed(self, *, produced: bool, now: float) -> "Tokens":
        """After a one-token probe."""
        return replace(self, last=now, failed=None) if produced else replace(self, failed=now)

    def age(self, now: float) -> float | None:
        """Seconds since the last token, None before the first."""
        return None if self.last is None else now - self.last

    def producing_since(self, moment: float) -> bool:
        """Whether a token was seen after that moment, and no probe has failed since."""
        return self.producing and self.last is not None and self.last >= moment

    @property
    def producing(self) -> bool:
        """Whether the latest evidence is a token."""
        return self.last is not None and self.failed is None
