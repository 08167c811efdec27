"""Crossings by hand, and the laws that they keep."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cards import Metric
from harness.events import Evaluation
from harness.referee.target import Crossings, find_crossings

ACCURACY = Metric(name="accuracy", direction="maximise", target=0.9)
LOSS = Metric(name="loss", direction="minimise", target=0.5)


def curve(values: Sequence[float | None], metric: Metric = ACCURACY) -> list[Evaluation]:
    """One evaluation every 100 ns."""
    return [
        Evaluation(
            index=i,
            elapsed_ns=100 * (i + 1),
            compile_ns=0,
            steps=i + 1,
            examples=i + 1,
            model_passes=i + 1,
            value=value,
            metrics={},
            meets=value is not None and metric.meets(value),
            off_grid=False,
            test_value=None,
            export_ns=0,
            evaluation_ns=0,
            gpu_peak_allocated_bytes=None,
        )
        for i, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("values", "budget_ns", "expected"),
    [
        ([], 1000, (None, None, False, None)),
        ([0.5, 0.8], 1000, (None, None, False, None)),
        # 0.8 → 1.0 over 100 ns meets 0.9 half-way.
        ([0.8, 1.0], 1000, (1, None, True, 150)),
        ([0.8, 1.0, 0.9], 1000, (1, 1, False, 150)),
        ([0.8, 1.0, 0.8], 1000, (1, None, False, 150)),
        # The first crossing is not the credited one.
        ([0.8, 1.0, 0.8, 0.9, 0.9], 1000, (1, 3, False, 150)),
        # The confirming evaluation may lie beyond the budget, the credited one may not.
        ([0.8, 0.9, 0.9], 200, (1, 1, False, 200)),
        ([0.8, 0.9, 0.9], 199, (1, None, False, 200)),
        ([0.8, 0.9], 200, (1, None, True, 200)),
        ([0.8, 0.9], 199, (1, None, False, 200)),
        # Nothing to interpolate from.
        ([0.9, 0.9], 1000, (0, 0, False, None)),
        ([None, 0.9, 0.9], 1000, (1, 1, False, None)),
        ([0.95, None, 0.95, 0.95], 1000, (0, 2, False, None)),
    ],
)
def test_crossings_by_hand(
    values: list[float | None],
    budget_ns: int,
    expected: tuple[int | None, int | None, bool, int | None],
) -> None:
    first, credited, pending, interpolated_ns = expected
    assert find_crossings(curve(values), ACCURACY, budget_ns) == Crossings(
        first=first, credited=credited, pending=pending, interpolated_ns=interpolated_ns
    )


def test_a_metric_to_be_minimised_crosses_downwards() -> None:
    crossings = find_crossings(curve([0.9, 0.4, 0.5, 0.6], LOSS), LOSS, 1000)
    assert (crossings.first, crossings.credited, crossings.interpolated_ns) == (1, 1, 180)


values = st.lists(st.none() | st.floats(0, 1), max_size=12)
budgets = st.integers(0, 1500)


@given(values, budgets)
def test_a_credited_run_met_the_target_twice_running_within_the_budget(
    values: list[float | None], budget_ns: int
) -> None:
    evaluations = curve(values)
    found = find_crossings(evaluations, ACCURACY, budget_ns)
    if found.credited is None:
        assert not any(
            a.meets and b.meets and a.elapsed_ns <= budget_ns
            for a, b in itertools.pairwise(evaluations)
        )
        return
    assert found.first is not None and found.credited >= found.first
    assert evaluations[found.credited].meets and evaluations[found.credited + 1].meets
    assert evaluations[found.credited].elapsed_ns <= budget_ns
    assert not found.pending


@given(values, budgets, budgets)
def test_a_larger_budget_never_takes_a_credit_away(
    values: list[float | None], one: int, other: int
) -> None:
    small, large = sorted((one, other))
    evaluations = curve(values)
    before = find_crossings(evaluations, ACCURACY, small).credited
    after = find_crossings(evaluations, ACCURACY, large).credited
    assert before is None or before == after


@given(values, budgets, st.none() | st.floats(0, 1))
def test_another_evaluation_changes_no_credit(
    values: list[float | None], budget_ns: int, next_value: float | None
) -> None:
    before = find_crossings(curve(values), ACCURACY, budget_ns)
    after = find_crossings(curve([*values, next_value]), ACCURACY, budget_ns)
    if before.credited is not None:
        assert after.credited == before.credited
    elif before.pending:
        met = next_value is not None and ACCURACY.meets(next_value)
        assert (after.credited is not None) == met
    else:
        assert after.credited is None


@given(values)
def test_the_interpolated_crossing_lies_in_the_interval_before_the_first(
    values: list[float | None],
) -> None:
    found = find_crossings(curve(values), ACCURACY, 1000)
    if found.interpolated_ns is not None:
        assert found.first is not None
        assert 100 * found.first <= found.interpolated_ns <= 100 * (found.first + 1)
