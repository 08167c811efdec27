"""Linear decay against Defazio et al. 2023, with values worked out by hand."""

import inspect
import math
from pathlib import Path

import pytest
from card_defaults import card_defaults

from harness.cards import SubmissionCard, read_card
from harness.session import Factors
from submissions.schedules import linear
from submissions.schedules.linear import Linear


def test_without_warmup_it_is_1_minus_t_over_the_budget() -> None:
    schedule = Linear(warmup_fraction=0.0)
    steps = 8
    factors = [schedule(t / steps).learning_rate for t in range(1, steps + 1)]
    assert factors == [0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0]


def test_warms_up_peaks_and_decays_to_zero() -> None:
    schedule = Linear(warmup_fraction=0.25)
    by_hand = {0.0625: 0.25, 0.125: 0.5, 0.25: 1.0, 0.4375: 0.75, 0.625: 0.5, 1.0: 0.0}
    for progress, value in by_hand.items():
        assert schedule(progress) == Factors(learning_rate=value)


def test_the_first_step_learns_and_only_the_last_does_not() -> None:
    factors = [Linear()(t / 750).learning_rate for t in range(1, 751)]
    assert min(factors[:-1]) > 0
    assert factors[-1] == 0


def test_nothing_but_warmup() -> None:
    schedule = Linear(warmup_fraction=1.0)
    assert [schedule(p).learning_rate for p in (0.5, 1.0)] == [0.5, 1.0]


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_an_illegal_fraction_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"Linear: warmup_fraction must be a number in \[0, 1\]"):
        Linear(warmup_fraction=value)


def test_the_card_and_the_constructor_agree() -> None:
    card = read_card(Path(linear.__file__).with_suffix(".yaml"), SubmissionCard)
    arguments = {
        name: argument.default for name, argument in inspect.signature(Linear).parameters.items()
    }
    assert card_defaults(card, arguments) == arguments
    assert (card.kind, card.implementation) == ("schedule", "linear:Linear")
