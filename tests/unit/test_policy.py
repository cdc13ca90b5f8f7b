"""What becomes of an engine that has ended."""

from hypothesis import given
from hypothesis import strategies as st

from shoal.engine.policy import MAX_DELAY, WINDOW, Again, GiveUp, after_exit


def test_never_ready() -> None:
    """An engine that produced no token is not started again, however large the budget is."""
    assert after_exit((), 0.0, was_ready=False, budget=99) == GiveUp("it ended before its first token")


def test_delays_double() -> None:
    """Each end within the window doubles the delay, up to a minute."""
    now = 100.0
    delays = [after_exit((now,) * count, now, was_ready=True, budget=99) for count in range(9)]
    assert delays == [Again(delay) for delay in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0)]


def test_budget() -> None:
    """As many ends within ten minutes as the budget has restarts are enough to give up."""
    assert after_exit((1.0, 2.0), 3.0, was_ready=True, budget=3) == Again(2.0)
    assert after_exit((1.0, 2.0, 2.5), 3.0, was_ready=True, budget=3) == GiveUp("3 restarts within 10 minutes")


def test_old_ends_are_forgotten() -> None:
    """An end that is ten minutes old counts no more."""
    assert after_exit((0.0, 0.1), WINDOW, was_ready=True, budget=2) == Again(1.0)
    assert after_exit((0.0, 0.1), WINDOW + 0.1, was_ready=True, budget=2) == Again(0.5)


@given(st.lists(st.floats(0, 10_000), max_size=40), st.integers(0, 20))
def test_bounds(ends: list[float], budget: int) -> None:
    """Whatever has ended before, the delay is between half a second and a minute, and the budget is kept."""
    now = 10_000.0
    decision = after_exit(tuple(ends), now, was_ready=True, budget=budget)
    recent = sum(now - at < WINDOW for at in ends)
    if recent >= budget:
        assert isinstance(decision, GiveUp)
    else:
        assert isinstance(decision, Again)
        assert 0.5 <= decision.delay <= MAX_DELAY
