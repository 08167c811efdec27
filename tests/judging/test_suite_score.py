"""The score over a suite: by hand, without regard to the pool, and how often intervals hold."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.judging.leaderboard import ROW
from harness.judging.suite_ranking import scored_entries
from harness.judging.suite_score import Comparison, Score, Timing, credit, score

WORKLOADS = {"a/one": 1, "b/two": 1}
BUDGET_S = 50.0

Measured = tuple[tuple[Any, ...], list[dict[str, Any]]]


def timing(name: str, *times: float | None, budget_s: float = BUDGET_S) -> Timing:
    """Return a timing; None is a miss."""
    return Timing(
        name=name,
        times=[(budget_s, False) if one is None else (one, True) for one in times],
        budget_s=budget_s,
    )


def against(submission: Timing, reference: Timing) -> Comparison:
    return Comparison(workload="a/one", submission=submission, reference=reference)


def row(submission: str, workload: str, times: list[float | None], **changes: Any) -> Measured:
    key = {
        "workload": workload,
        "workload_version": 1,
        "machine_class": "a CPU",
        "tuning_effort": "reference" if submission == "adamw" else "defaults",
        "submission": submission,
        "source_sha256": f"source of {submission}",
        "hyperparameters": json.dumps({"lr": 0.1}),
    } | changes
    runs = [
        {
            "run_id": f"{sorted(key.items())} {position}",
            "outcome": "budget" if one is None else "reached",
            "tainted": [],
            "time_to_target_s": one,
            "time_without_compile_s": one,
            "compile_s": 0.0,
            "budget_s": BUDGET_S,
        }
        for position, one in enumerate(times)
    ]
    return tuple(key[name] for name in ROW), runs


def scores(*measured: Measured) -> dict[str, dict[str, Any]]:
    return {one["submission"]: one for one in scored_entries(measured, WORKLOADS, "cold")}


def test_credits_worked_by_hand() -> None:
    ratios = np.array([0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 9.0])
    assert credit(np.log2(ratios)).tolist() == [1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]


def test_scores_worked_by_hand() -> None:
    reference = timing("r", 2.0, 4.0, 6.0)
    assert score([against(timing("s", 1.0, 3.0), reference)]).score == pytest.approx(0.75)
    # A miss counts with the budget: (2 + 50) ÷ 2 is more than four times 4.
    assert score([against(timing("s", 2.0, None), reference)]).score == 0.0
    half = score([against(timing("s", 2.0), reference), against(timing("t", 16.0), reference)])
    assert half.score == pytest.approx((0.75 + 0.0) / 2)


def test_giving_up_early_makes_nobody_quick() -> None:
    reference = timing("r", 8.0, 8.0)
    early = Timing(name="s", times=[(1.0, False), (2.0, True)], budget_s=BUDGET_S)
    expected = 0.5 - math.log2(26 / 8) / 4
    assert score([against(early, reference)]).score == pytest.approx(expected)


def test_the_reference_scores_a_half_exactly() -> None:
    found = scores(*(row("adamw", workload, [1.0, 2.0, 7.0, 3.0, None]) for workload in WORKLOADS))
    adamw = found["adamw"]
    assert adamw["score"] == 0.5
    assert (adamw["score_low"], adamw["why_no_interval"]) == (None, "it is the reference")


@pytest.mark.parametrize(
    ("measured", "why"),
    [
        ([row("lion", "a/one", [1.0])], "no runs on b/two"),
        (
            [
                row("lion", "a/one", [1.0]),
                row("lion", "a/one", [1.0], hyperparameters="{}"),
                row("lion", "b/two", [1.0]),
            ],
            "more than one point on a/one",
        ),
        ([row("lion", "a/one", [1.0]), row("lion", "b/two", [1.0], workload_version=2)], "b/two"),
        (
            [row("lion", name, [1.0], machine_class="another") for name in WORKLOADS],
            "the reference has no runs on a/one, b/two",
        ),
    ],
)
def test_who_has_no_score_is_shown_and_why(measured: list[Measured], why: str) -> None:
    reference = [row("adamw", workload, [1.0]) for workload in WORKLOADS]
    lion = scores(*reference, *measured)["lion"]
    assert (lion["score"], lion["rank"]) == (None, None)
    assert why in lion["why_no_score"]


def test_points_set_by_hand_are_entries_of_their_own() -> None:
    hand = {"tuning_effort": "by hand"}
    measured = [row("adamw", workload, [1.0]) for workload in WORKLOADS]
    measured += [row("lion", w, [0.5], hyperparameters='{"lr": 1}', **hand) for w in WORKLOADS]
    measured += [row("lion", w, [0.25], hyperparameters='{"lr": 2}', **hand) for w in WORKLOADS]
    found = [
        one
        for one in scored_entries(measured, WORKLOADS, "cold")
        if one["tuning_effort"] == "by hand"
    ]
    assert [(one["hyperparameters"], one["score"]) for one in found] == [
        ('{"lr": 2}', 1.0),
        ('{"lr": 1}', 0.75),
    ]


@pytest.mark.parametrize(
    ("times", "reference", "why"),
    [
        ([1.0] * 4, [1.0] * 5, "4 runs on a/one, and an interval takes 5"),
        ([1.0] * 5, [1.0], "the reference's 1 run on a/one, and an interval takes 5"),
        ([1.0, 1.0, 1.0, 1.0, None], [1.0] * 5, "1 of 5 runs on a/one missed the target"),
    ],
)
def test_an_interval_that_would_not_hold_is_not_given(
    times: list[float | None], reference: list[float | None], why: str
) -> None:
    found = score([against(timing("s", *times), timing("r", *reference))])
    assert (found.low, found.high, found.why) == (None, None, why)


pool_times = st.lists(st.one_of(st.floats(0.1, BUDGET_S), st.none()), min_size=1, max_size=6)
entry_times = st.tuples(pool_times, pool_times)


@settings(deadline=None, max_examples=40)
@given(st.lists(entry_times, min_size=2, max_size=5), entry_times, st.data())
def test_no_score_or_order_changes_because_another_entered_or_left(
    pool: list[tuple[list[float | None], ...]],
    reference: tuple[list[float | None], ...],
    data: st.DataObject,
) -> None:
    def measured(chosen: list[int]) -> list[Measured]:
        entries = [(f"method-{n}", pool[n]) for n in chosen]
        return [
            row(name, workload, times)
            for name, both in [("adamw", reference), *entries]
            for workload, times in zip(WORKLOADS, both, strict=True)
        ]

    everybody = scores(*measured(list(range(len(pool)))))
    staying = data.draw(st.lists(st.sampled_from(range(len(pool))), unique=True))
    some = scores(*measured(staying))
    own = ("score", "score_low", "score_high", "why_no_score", "why_no_interval")
    for name, one in some.items():
        assert {field: one[field] for field in own} == {
            field: everybody[name][field] for field in own
        }
    assert list(some) == [name for name in everybody if name in some]


def drawn(
    generator: np.random.Generator, n: int, log_mean: float, spread: float, name: str
) -> Timing:
    times = np.exp(log_mean + spread * generator.normal(size=n))
    return timing(name, *(float(one) for one in times))


def drawn_score(
    generator: np.random.Generator, n: int, log_means: list[float], spread: float
) -> Score:
    number = generator.integers(2**62)  # samples of different names are resampled differently
    return score(
        [
            against(
                drawn(generator, n, mean, spread, f"{number} s{position}"),
                drawn(generator, n, 0.0, spread, f"{number} r{position}"),
            )
            for position, mean in enumerate(log_means)
        ]
    )


def coverage(n: int, workloads: int, spread: float, trials: int) -> float:
    generator = np.random.default_rng(100 * n + workloads)
    log_means = [-0.3 + 0.1 * position for position in range(workloads)]
    true = float(credit(np.array(log_means) / math.log(2)).mean())
    found = [drawn_score(generator, n, log_means, spread) for _ in range(trials)]
    held = [one.low <= true <= one.high for one in found if one.low is not None and one.high]
    assert len(held) == trials
    return sum(held) / trials


def test_intervals_hold_as_often_as_they_say() -> None:
    assert 0.93 <= coverage(5, 2, 0.1, 600) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("workloads", [1, 3])
@pytest.mark.parametrize("n", [5, 10, 20])
@pytest.mark.parametrize("spread", [0.07, 0.3])
def test_intervals_hold_whatever_the_number_of_runs(n: int, workloads: int, spread: float) -> None:
    assert 0.93 <= coverage(n, workloads, spread, 5000) <= 0.97
