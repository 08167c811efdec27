import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.clock import Stopwatch


class Hands:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000

    def __call__(self) -> int:
        return self.now


def test_only_the_spans_count() -> None:
    hands = Hands()
    clock = Stopwatch(hands)
    assert clock.elapsed_ns == 0 and not clock.running
    hands.now += 50
    clock.resume()
    hands.now += 7
    assert clock.running and clock.elapsed_ns == 7
    hands.now += 3
    assert clock.pause() == 10
    hands.now += 1000
    assert clock.elapsed_ns == 10
    clock.resume()
    hands.now += 5
    assert clock.pause() == 15


def test_a_span_opens_once_and_closes_once() -> None:
    clock = Stopwatch()
    with pytest.raises(AssertionError, match="does not run"):
        clock.pause()
    clock.resume()
    with pytest.raises(AssertionError, match="runs already"):
        clock.resume()


@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**12))))
def test_pauses_add_nothing(spans: list[tuple[int, int]]) -> None:
    hands = Hands()
    clock = Stopwatch(hands)
    for on, off in spans:
        clock.resume()
        hands.now += on
        clock.pause()
        hands.now += off
    assert clock.elapsed_ns == sum(on for on, _ in spans)
