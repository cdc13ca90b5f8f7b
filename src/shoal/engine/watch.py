"""Is a token to be had? Pure: the supervisor feeds what it saw, this says what is known."""

from dataclasses import dataclass, replace

PROBE_EVERY = 10.0
WEDGED = "wedged: "


@dataclass(frozen=True)
class Counters:
    """vLLM's own counters, and the requests that it has now."""

    tokens: float
    prompt: float = 0.0
    iterations: float | None = None
    running: float = 0.0
    waiting: float = 0.0

    @property
    def progress(self) -> tuple[float, float]:
        """What moves while the engine works, whatever it works on.

        A step counts the prompt tokens that it reads. The counter of prompts stands in for it only where there is none:
        a prompt may be counted as it arrives, and then our own probe would look like progress.
        """
        return self.tokens, self.prompt if self.iterations is None else self.iterations

    @property
    def idle(self) -> bool:
        """Whether no request is left."""
        return self.running + self.waiting == 0


@dataclass(frozen=True)
class Probes:
    """Our own requests for one token, since the supervisor began; ``seconds`` of the last one."""

    total: int = 0
    failed: int = 0
    seconds: float | None = None

    def asked(self, seconds: float, *, produced: bool) -> "Probes":
        """After one more."""
        return Probes(self.total + 1, self.failed + (not produced), seconds)


@dataclass(frozen=True)
class Tokens:
    """What is known of tokens; seconds of a monotonic clock. ``counter`` is vLLM's own, ``moved`` the last progress."""

    last: float | None = None
    counter: float | None = None
    failed: float | None = None
    progress: tuple[float, float] | None = None
    moved: float | None = None

    def looked(self, counters: Counters | None, now: float) -> "Tokens":
        """After a look at all counters: tokens, and any other progress."""
        if counters is None:
            return self
        moved = now if self.progress is not None and counters.progress != self.progress else self.moved
        return replace(self.counted(counters.tokens, now), progress=counters.progress, moved=moved)

    def counted(self, counter: float | None, now: float) -> "Tokens":
        """After a look at vLLM's counter: a counter that moved is a token seen."""
        if counter is None or counter == self.counter:
            return self
        moved = self.counter is not None and counter > self.counter
        return replace(self, counter=counter, last=now if moved else self.last, failed=None if moved else self.failed)

    def probed(self, *, produced: bool, now: float) -> "Tokens":
        """After a one-token probe."""
        return replace(self, last=now, failed=None) if produced else replace(self, failed=now)

    def excused(self, now: float) -> "Tokens":
        """While a node is silent no token can come: that silence is the node's, and its time does not count here."""
        return replace(self, moved=now)

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

    def wedged(self, now: float, after: float) -> str:
        """Why the engine counts as wedged: a probe failed, and for ``after`` seconds nothing moved. Else empty.

        A full queue is no wedge: other requests' tokens, prompts and steps move the counters.
        """
        last = max((at for at in (self.last, self.moved) if at is not None), default=None)
        if self.failed is None or last is None or now - last <= after:
            return ""
        return f"{WEDGED}no token on request, and no counter of vLLM's moved for {now - last:.0f} s"
