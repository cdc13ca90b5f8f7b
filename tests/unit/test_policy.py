"""What becomes of an engine that has ended."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.engine.policy import MAX_DELAY, WINDOW, Again, Ends, GiveUp, after_end, repeats

WHY = "the Ray of w (10.0.0.2) has ended"
USAGE = "vLLM ended (code 2): unrecognized arguments: --tensor-paralel-size"


@pytest.mark.parametrize(
    "why",
    [
        USAGE,
        "vLLM ended (code 1): ValidationError: 1 validation error for ModelConfig Value error, max_model_len",
        "vLLM ended (code 1): OSError: m does not appear to have a file named config.json",
    ],
)
def test_what_a_restart_repeats_is_not_tried_again(why: str) -> None:
    """A wrong argument or model ends the first start for good; once a token has come it is an end as any other."""
    assert after_end(Ends(), 0.0, why, budget=9) == GiveUp(
        "it ended before its first token, and would again", final=True
    )
    assert isinstance(after_end(Ends(ever_ready=True), 0.0, why, budget=9), Again)
    assert not repeats(WHY)


def test_delays_double() -> None:
    """Each end within the window doubles the delay, up to a minute."""
    now = 100.0
    delays = [after_end(Ends((now,) * count), now, WHY, budget=99) for count in range(9)]
    assert delays == [Again(delay) for delay in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0)]


def test_budget() -> None:
    """As many ends within ten minutes as the budget has restarts are enough to give up; older ones count no more."""
    assert after_end(Ends((1.0, 2.0)), 3.0, WHY, budget=3) == Again(2.0)
    assert after_end(Ends((1.0, 2.0, 2.5)), 3.0, WHY, budget=3) == GiveUp("3 restarts within 10 minutes")
    assert after_end(Ends((0.0, 0.1)), WINDOW + 0.1, WHY, budget=2) == Again(0.5)


def test_starts_without_a_token_are_counted_however_long_they_take() -> None:
    """A model that loads for half an hour and then fails opens the breaker as well; a token closes the count."""
    ends, now = Ends(), 0.0
    for _ in range(2):
        assert isinstance(after_end(ends, now, WHY, budget=2), Again)
        ends, now = ends.ended(now, was_ready=False), now + 1800
    assert after_end(ends, now, WHY, budget=2) == GiveUp("3 starts in a row ended before a token came")
    assert after_end(ends.ready(), now, WHY, budget=2) == Again(0.5)


@given(st.lists(st.floats(0, 10_000), max_size=40), st.integers(0, 30), st.integers(0, 20), st.floats(0, 1))
def test_bounds(moments: list[float], tokenless: int, budget: int, dice: float) -> None:
    """Whatever has ended before, the delay is between 3/8 of a second and a minute, and the budget is kept."""
    now = 10_000.0
    decision = after_end(Ends(tuple(moments), tokenless), now, WHY, budget=budget, dice=dice)
    if tokenless >= budget or sum(now - at < WINDOW for at in moments) >= budget:
        assert isinstance(decision, GiveUp)
    else:
        assert isinstance(decision, Again)
        assert 0.375 <= decision.delay <= MAX_DELAY
