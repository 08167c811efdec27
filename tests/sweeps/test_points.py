"""Rulesets as published, and points that cover a card's ranges."""

import math
from itertools import pairwise

import pytest

from harness import catalogue
from harness.cards import Hyperparameter, SearchRange, SubmissionCard
from harness.errors import UsageError
from harness.sweeps.points import as_settings, draw_points, search_space
from harness.sweeps.rulesets import RULESETS, ruleset_named


def card(**ranges: SearchRange) -> SubmissionCard:
    return SubmissionCard(
        name="steady",
        title="Steady",
        kind="optimizer",
        implementation="steady:Steady",
        hyperparameters={
            name: Hyperparameter(default="1", search=known) for name, known in ranges.items()
        }
        | {"fixed": Hyperparameter(default="3")},
    )


LOG = SearchRange(low=1e-4, high=1e-1, scale="log")
LINEAR = SearchRange(low=0.0, high=0.5)


def test_the_numbers_of_algoperf() -> None:
    told = {name: (r.studies, r.trials, r.budget_factor) for name, r in RULESETS.items()}
    assert told == {
        "external": (3, 5, 1.0),
        "external-v0.5": (5, 5, 1.0),
        "self-tuning": (3, 1, 1.5),
        "self-tuning-v0.5": (5, 1, 3.0),
    }
    with pytest.raises(UsageError, match="Did you mean 'external'"):
        ruleset_named("externl")


def test_points_lie_in_the_ranges_and_cover_each_axis() -> None:
    points = draw_points(card(lr=LOG, decay=LINEAR), 64, ("a",))
    assert all(list(point) == ["lr", "decay"] for point in points)
    lr = sorted(math.log10(float(point["lr"])) for point in points)
    decay = sorted(float(point["decay"]) for point in points)
    assert lr[0] >= -4 and lr[-1] <= -1 and decay[0] >= 0 and decay[-1] <= 0.5
    # Independent draws leave gaps of about log(64)/64 = 6.5 % of an axis; these do not.
    assert max(b - a for a, b in pairwise(lr)) < 3 * 0.045
    assert max(b - a for a, b in pairwise(decay)) < 0.5 * 0.045


def test_equal_words_give_equal_points_and_more_points_begin_with_them() -> None:
    steady = card(lr=LOG, decay=LINEAR)
    first = draw_points(steady, 5, (0, "resnet/digits", 1))
    assert draw_points(steady, 5, (0, "resnet/digits", 1)) == first
    assert draw_points(steady, 9, (0, "resnet/digits", 1))[:5] == first
    for words in ((1, "resnet/digits", 1), (0, "gpt/addition", 1), (0, "resnet/digits", 2)):
        assert draw_points(steady, 5, words) != first


def test_whole_numbers_stay_whole_and_within() -> None:
    known = Hyperparameter(
        default="4", type="integer", search=SearchRange(low=2.5, high=6.5, scale="linear")
    )
    steady = card()
    steady = SubmissionCard(
        name=steady.name,
        title=steady.title,
        kind=steady.kind,
        implementation=steady.implementation,
        hyperparameters={"k": known},
    )
    drawn = {point["k"] for point in draw_points(steady, 50, ("k",))}
    assert drawn == {"3", "4", "5", "6"}


def test_nothing_to_search_is_said() -> None:
    with pytest.raises(UsageError, match="steady has no search ranges"):
        draw_points(card(), 3, ())


def test_every_bundled_range_gives_legal_points() -> None:
    for name, entry in catalogue.submissions().items():
        if search_space(entry.card):
            for point in draw_points(entry.card, 20, (name,)):
                for key, text in point.items():
                    entry.card.hyperparameters[key].convert(text)


def test_a_point_becomes_settings() -> None:
    assert as_settings("lion", {"lr": "1e-3", "beta1": "0.9"}) == ("lion.lr=1e-3", "lion.beta1=0.9")
