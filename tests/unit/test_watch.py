"""What is known of tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.engine.watch import Counters, Tokens


def test_before_the_first() -> None:
    """Before the first token there is no age, and nothing is produced, since whenever."""
    tokens = Tokens()
    assert (tokens.age(5.0), tokens.producing_since(0.0), tokens.producing) == (None, False, False)


def test_age() -> None:
    """A probe that brought a token sets the age to zero; it counts for any moment up to its own."""
    tokens = Tokens().probed(produced=True, now=10.0)
    assert tokens == Tokens(last=10.0)
    assert (tokens.age(11.5), tokens.producing_since(10.0), tokens.producing_since(10.1)) == (1.5, True, False)


def test_the_first_counter() -> None:
    """The first value of the counter tells nothing: its tokens may be old."""
    assert Tokens().counted(500.0, 10.0) == Tokens(counter=500.0)


def test_a_counter_that_moved() -> None:
    """A counter that has grown is a token seen."""
    assert Tokens(last=1.0, counter=5.0).counted(6.0, 9.0) == Tokens(last=9.0, counter=6.0)


def test_a_counter_that_stands() -> None:
    """A counter that stands, or gave no answer, changes nothing."""
    tokens = Tokens(last=1.0, counter=5.0, failed=2.0)
    assert tokens.counted(5.0, 9.0) is tokens
    assert tokens.counted(None, 9.0) is tokens


def test_a_counter_that_began_again() -> None:
    """A counter that fell belongs to a new server, and is no token."""
    assert Tokens(last=1.0, counter=5.0).counted(0.0, 9.0) == Tokens(last=1.0, counter=0.0)


def test_a_failed_probe() -> None:
    """A failed probe alone means that nothing is produced; the last token's age stays."""
    tokens = Tokens(last=1.0, counter=5.0).probed(produced=False, now=9.0)
    assert tokens == Tokens(last=1.0, counter=5.0, failed=9.0)
    assert not tokens.producing
    assert not tokens.producing_since(0.0)


def test_a_full_queue_is_no_wedge() -> None:
    """A failed probe followed by a counter that moved is no wedge."""
    tokens = Tokens(last=1.0, counter=5.0).probed(produced=False, now=9.0).counted(6.0, 10.0)
    assert tokens == Tokens(last=10.0, counter=6.0)
    assert tokens.producing


def test_a_wedge() -> None:
    """A failed probe followed by a counter that stands is a wedge, until a probe brings a token."""
    tokens = Tokens(last=1.0, counter=5.0).probed(produced=False, now=9.0).counted(5.0, 10.0)
    assert not tokens.producing
    assert tokens.probed(produced=True, now=11.0) == Tokens(last=11.0, counter=5.0)


@given(st.lists(st.none() | st.booleans() | st.floats(0, 100)))
def test_never_producing_without_a_token(events: list[bool | float | None]) -> None:
    """Whatever is seen, production is claimed only where the latest evidence is a token."""
    tokens, produced, counter = Tokens(), False, None
    for now, event in enumerate(events):
        if isinstance(event, bool):
            tokens, produced = tokens.probed(produced=event, now=now), event
        else:
            tokens = tokens.counted(event, now)
            if event is not None:
                produced = produced or (counter is not None and event > counter)
                counter = event
    assert tokens.producing == produced


def test_a_wedge_is_a_failed_probe_and_nothing_that_moves() -> None:
    """Wedged is an engine whose probe failed and of which nothing moved for that long; either alone is none."""
    quiet = Tokens(last=0.0).looked(Counters(5.0), 0.0)
    assert quiet.wedged(61.0, 60.0) == ""
    failed = quiet.probed(produced=False, now=50.0)
    assert failed.wedged(60.0, 60.0) == ""
    assert failed.wedged(61.0, 60.0) == "wedged: no token on request, and no counter of vLLM's moved for 61 s"
    assert failed.looked(Counters(5.0), 61.0).wedged(62.0, 60.0) != ""


@pytest.mark.parametrize(
    ("before", "moved"),
    [
        (Counters(5.0), Counters(6.0)),
        (Counters(5.0), Counters(5.0, prompt=1.0)),
        (Counters(5.0, iterations=3.0), Counters(5.0, iterations=4.0)),
    ],
)
def test_any_progress_is_no_wedge(before: Counters, moved: Counters) -> None:
    """Tokens of others, a prompt that is read or a step that is taken are progress, however long a probe waits."""
    busy = Tokens(last=0.0).looked(before, 0.0).probed(produced=False, now=50.0).looked(moved, 55.0)
    assert (busy.probed(produced=False, now=60.0).wedged(70.0, 60.0), busy.moved) == ("", 55.0)


def test_a_prompt_that_only_arrived_is_no_progress() -> None:
    """Where steps are counted, a prompt that is counted on arrival moves nothing: it may be our own probe's."""
    failed = Tokens(last=0.0).looked(Counters(5.0, iterations=3.0), 0.0).probed(produced=False, now=50.0)
    assert failed.looked(Counters(5.0, prompt=1.0, iterations=3.0), 60.0).wedged(61.0, 60.0) != ""


def test_a_silent_node_excuses_the_engine() -> None:
    """While a node is silent the time without tokens is the node's, and does not make a wedge."""
    failed = Tokens(last=0.0).probed(produced=False, now=50.0).excused(65.0)
    assert (failed.wedged(120.0, 60.0), failed.wedged(126.0, 60.0) != "") == ("", True)


def test_before_the_first_token_there_is_no_wedge() -> None:
    """An engine that never produced a token is still starting; its own rule covers that."""
    assert Tokens().probed(produced=False, now=1.0).wedged(1e6, 60.0) == ""
