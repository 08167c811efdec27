"""WSD against Hägele et al. 2024, with values worked out by hand."""

import inspect
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from card_defaults import card_defaults

from harness.cards import SubmissionCard, read_card
from harness.session import Factors
from submissions.schedules import wsd
from submissions.schedules.wsd import WSD


def factor(schedule: WSD, progress: float) -> float:
    return schedule(progress).learning_rate


@pytest.mark.parametrize(
    ("one_minus_sqrt", "by_hand"),
    [
        # u is 0, 1/4, 1/2 and 1 at these progresses; f + (1 - f)(1 - u) or (1 - √u), f = 0.2.
        (False, {0.6: 1.0, 0.7: 0.8, 0.8: 0.6, 1.0: 0.2}),
        (True, {0.6: 1.0, 0.7: 0.6, 0.8: 1 - 0.8 * math.sqrt(0.5), 1.0: 0.2}),
    ],
)
def test_follows_the_published_shapes(one_minus_sqrt: bool, by_hand: dict[float, float]) -> None:
    schedule = WSD(
        decay_fraction=0.4,
        one_minus_sqrt=one_minus_sqrt,
        warmup_fraction=0.1,
        final_lr_fraction=0.2,
    )
    assert factor(schedule, 0.025) == 0.25
    assert [factor(schedule, p) for p in (0.1, 0.3, 0.59)] == [1.0, 1.0, 1.0]
    for progress, value in by_hand.items():
        assert factor(schedule, progress) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("one_minus_sqrt", [True, False])
@pytest.mark.parametrize("final", [0.0, 0.1, 1 / 3])
@pytest.mark.parametrize("decay", [0.1, 0.2, 0.3, 0.7])
def test_ends_at_its_floor_without_a_jump(one_minus_sqrt: bool, final: float, decay: float) -> None:
    schedule = WSD(decay, one_minus_sqrt, 0.05, final)
    assert factor(schedule, 1.0) == final
    values = [factor(schedule, i / 10_000) for i in range(500, 10_001)]
    assert values == sorted(values, reverse=True)
    assert min(values) == final
    # √ falls steeply where it starts, by √(10⁻⁴ / 0.1); nowhere does either shape jump.
    assert max(a - b for a, b in itertools.pairwise(values)) < 0.032
    assert values[-2] - values[-1] < 1.1e-3


def test_the_first_step_learns() -> None:
    assert factor(WSD(), 1 / 750) > 0


def test_without_decay_it_is_constant_and_without_warmup_it_starts_at_1() -> None:
    schedule = WSD(decay_fraction=0.0, warmup_fraction=0.0, final_lr_fraction=0.1)
    assert [factor(schedule, p) for p in (1e-6, 0.5, 1.0)] == [1.0, 1.0, 1.0]


def test_all_decay() -> None:
    schedule = WSD(decay_fraction=1.0, one_minus_sqrt=False, warmup_fraction=0.0)
    assert [factor(schedule, p) for p in (0.25, 0.5, 1.0)] == [0.75, 0.5, 0.0]


def test_scales_the_learning_rate_alone() -> None:
    assert WSD(0.5, False, 0.0, 0.0)(0.75) == Factors(learning_rate=0.5)


@pytest.mark.parametrize("name", ["decay_fraction", "warmup_fraction", "final_lr_fraction"])
@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_illegal_fractions_are_refused(name: str, value: float) -> None:
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=rf"WSD: {name} must be a number in \[0, 1\], not "):
        WSD(**arguments)


def test_warmup_and_decay_do_not_overlap() -> None:
    with pytest.raises(ValueError, match="must not add up to more than 1"):
        WSD(decay_fraction=0.8, warmup_fraction=0.3)


def test_the_card_and_the_constructor_agree() -> None:
    card = read_card(Path(wsd.__file__).with_suffix(".yaml"), SubmissionCard)
    arguments = {
        name: argument.default for name, argument in inspect.signature(WSD).parameters.items()
    }
    assert card_defaults(card, arguments) == arguments
    assert (card.kind, card.implementation) == ("schedule", "wsd:WSD")
