"""UBA against Tang et al. 2025, with values worked out by hand."""

import inspect
import math
from pathlib import Path

import pytest
from card_defaults import card_defaults

from harness.cards import SubmissionCard, read_card
from harness.session import Factors
from submissions.schedules import uba
from submissions.schedules.uba import UBA


def factor(schedule: UBA, progress: float) -> float:
    return schedule(progress).learning_rate


def test_follows_the_published_formula() -> None:
    schedule = UBA(phi=0.5, warmup_fraction=0.0, final_lr_fraction=0.0)
    # c = 1 + cos(π d) is 1 + √½, 1, 1 - √½ and 0; η = 2c / (1 + 1.5 c).
    root = math.sqrt(0.5)
    by_hand = {
        0.25: 2 * (1 + root) / (1 + 1.5 * (1 + root)),
        0.5: 0.8,
        0.75: 2 * (1 - root) / (1 + 1.5 * (1 - root)),
        1.0: 0.0,
    }
    assert [round(value, 2) for value in by_hand.values()] == [0.96, 0.8, 0.41, 0.0]
    for progress, value in by_hand.items():
        assert factor(schedule, progress) == pytest.approx(value, rel=1e-14, abs=1e-15)


@pytest.mark.parametrize("phi", [0.1, 0.5, 1.0, 2.0, 5.0])
def test_warms_up_and_lands_on_its_floor(phi: float) -> None:
    schedule = UBA(phi=phi, warmup_fraction=0.2, final_lr_fraction=0.05)
    assert factor(schedule, 0.05) == 0.25
    assert factor(schedule, 0.2) == 1.0
    # Halfway through the decay c is 1: 0.05 + 0.95 · 2 / (2 + φ).
    assert factor(schedule, 0.6) == pytest.approx(0.05 + 0.95 * 2 / (2 + phi), rel=1e-14)
    assert factor(schedule, 1.0) == 0.05
    values = [factor(schedule, i / 1000) for i in range(200, 1001)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize(("warmup", "final"), [(0.1, 0.01), (0.0, 0.0), (0.3, 0.1), (1.0, 0.5)])
def test_phi_2_is_the_reference_cosine_bit_for_bit(warmup: float, final: float) -> None:
    schedule = UBA(phi=2.0, warmup_fraction=warmup, final_lr_fraction=final)
    for step in range(1, 751):
        progress = step / 750
        if progress < warmup:
            cosine = progress / warmup
        elif warmup == 1.0:
            cosine = 1.0
        else:
            decayed = (progress - warmup) / (1.0 - warmup)
            cosine = final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * decayed))
        assert factor(schedule, progress) == cosine


def test_a_smaller_phi_keeps_the_rate_higher() -> None:
    shapes = [UBA(phi=phi, warmup_fraction=0.0) for phi in (0.01, 0.5, 1.0, 2.0, 5.0)]
    for i in range(1, 100):
        values = [factor(schedule, i / 100) for schedule in shapes]
        assert values == sorted(values, reverse=True)
        assert len(set(values)) == len(values)
    assert factor(shapes[0], 0.9) > 0.7


def test_is_not_the_schedule_of_the_wrong_codes() -> None:
    schedule = UBA(phi=0.5, warmup_fraction=0.0, final_lr_fraction=0.0)
    assert abs(factor(schedule, 0.5) - (1 - 0.5) ** 0.5) > 0.05
    assert abs(factor(schedule, 0.5) - (1 - 0.5 * 0.5) ** 2) > 0.05


def test_scales_the_learning_rate_alone() -> None:
    schedule = UBA(phi=1.0, warmup_fraction=0.0, final_lr_fraction=0.0)
    assert schedule(0.5) == Factors(learning_rate=pytest.approx(2 / 3))


@pytest.mark.parametrize("phi", [0.0, -1.0, math.nan, math.inf])
def test_an_illegal_phi_is_refused(phi: float) -> None:
    with pytest.raises(ValueError, match=r"UBA: phi must be a number in \(0, inf\), not "):
        UBA(phi=phi)


@pytest.mark.parametrize("name", ["warmup_fraction", "final_lr_fraction"])
@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_illegal_fractions_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"UBA: {name} must be a number in \[0, 1\], not "):
        UBA(**{name: value})


def test_the_card_and_the_constructor_agree() -> None:
    card = read_card(Path(uba.__file__).with_suffix(".yaml"), SubmissionCard)
    arguments = {
        name: argument.default for name, argument in inspect.signature(UBA).parameters.items()
    }
    assert card_defaults(card, arguments) == arguments
    assert (card.kind, card.implementation) == ("schedule", "uba:UBA")
