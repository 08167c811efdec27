"""The figures of a card from curves written down by hand."""

import math
import statistics
from collections.abc import Sequence

import pytest
from records.synthetic_runs import workload_card

from harness.calibration.evidence import Curve, Point, Rival
from harness.calibration.figures import (
    TooFewError,
    backed_off,
    calibrated,
    false_reach,
    find_crossing,
    round_up,
    separation,
)
from harness.cards import Metric

ACCURACY = Metric(name="accuracy", direction="maximise", target=0.9)
LOSS = Metric(name="loss", direction="minimise", target=0.1)
CARD = workload_card()  # a grid of 3,000 passes, a horizon of 30,000


def points(values: Sequence[float | None], interval_s: float = 1.0) -> list[Point]:
    return [
        Point(model_passes=3000 * n, elapsed_s=interval_s * n, value=value, off_clock_s=0.5)
        for n, value in enumerate(values, start=1)
    ]


def curve(
    seed: int, values: Sequence[float | None], interval_s: float = 1.0, tainted: bool = False
) -> Curve:
    return Curve(
        seed=seed,
        pace_s=0.1,
        drift=0.0,
        tainted=["drift"] if tainted else [],
        ended="stopped",
        points=points(values, interval_s),
    )


def test_a_crossing_is_the_first_of_two_running() -> None:
    found = find_crossing(points([0.1, 0.95, 0.8, 0.9, 0.91, 0.2]), ACCURACY)
    assert found is not None
    assert (found.number, found.model_passes, found.elapsed_s) == (4, 12_000, 4.0)
    # Five evaluations of half a second, up to the one that confirms, beside 5 s of training.
    assert found.evaluation_share == pytest.approx(2.5 / 7.5)


@pytest.mark.parametrize("values", [[], [0.95], [0.95, 0.8, 0.95], [0.95, None, 0.95, 0.1]])
def test_no_crossing_without_a_confirmation(values: list[float | None]) -> None:
    assert find_crossing(points(values), ACCURACY) is None


def test_a_loss_crosses_downwards() -> None:
    found = find_crossing(points([0.5, 0.1, 0.05]), LOSS)
    assert found is not None and found.number == 2


@pytest.mark.parametrize(
    ("best", "sigma", "margin", "metric", "target"),
    [
        (0.97736, 0.0024, 3.0, ACCURACY, 0.9701),  # 0.97016, down
        (0.98, 0.002, 5.0, ACCURACY, 0.97),  # 0.97 in binary is a hair below 0.97
        (0.4581, 0.0008, 4.0, LOSS, 0.4613),  # exactly there
        (0.45811, 0.0008, 4.0, LOSS, 0.46131),  # a tenth of 0.0001, up
        (12.3, 1.7, 2.0, ACCURACY, 8.9),
        (0.9, 0.0, 3.0, ACCURACY, 0.9),
    ],
)
def test_a_target_is_backed_off_to_the_easier_side(
    best: float, sigma: float, margin: float, metric: Metric, target: float
) -> None:
    assert backed_off(best, sigma, margin, metric) == pytest.approx(target, abs=1e-12)


def test_rounding_up_keeps_two_digits() -> None:
    assert [round_up(x) for x in (2121.9, 537.0, 38536.2, 0.0123, 100.0)] == pytest.approx(
        [2200, 540, 39_000, 0.013, 100]
    )


FOUR = [
    curve(0, [0.2, 0.5, 0.7, 0.80, 0.90, 0.92, 0.93, 0.94, 0.95, 0.95, 0.99]),
    curve(1, [0.2, 0.5, 0.7, 0.85, 0.89, 0.90, 0.92, 0.93, 0.94, 0.94, 0.94], 2.0),
    curve(2, [0.2, 0.5, 0.8, 0.90, 0.91, 0.92, 0.95, 0.96, 0.96, 0.96, 0.96], 1.0, True),
    curve(3, [0.2, 0.5, 0.7, 0.80, 0.85, 0.86, 0.87, 0.88, 0.88, 0.89, 0.89]),
]


def test_figures_by_hand() -> None:
    found = calibrated(CARD, FOUR, margin_sigmas=1.0, target=0.9)
    # Eleven evaluations, ten within the horizon of 30,000 passes: the 0.99 does not count.
    levels = [(0.94 + 0.95 + 0.95) / 3, (0.93 + 0.94 + 0.94) / 3, 0.96, (0.88 + 0.88 + 0.89) / 3]
    assert found.best_median == pytest.approx((0.94 + 0.95) / 2)
    assert found.metric_sigma == pytest.approx(statistics.stdev(levels))
    assert (found.runs, found.reached, found.untainted, found.target) == (4, 3, 3, 0.9)
    seconds, passes = [5.0, 12.0, 4.0], [15_000, 18_000, 12_000]
    assert found.seconds_mean == pytest.approx(7.0)
    assert found.seconds_sd == pytest.approx(statistics.stdev(seconds))
    assert found.paces_mean == pytest.approx(70.0)
    assert found.time_cv == pytest.approx(statistics.stdev(seconds) / 7.0)
    assert found.passes_mean == pytest.approx(15_000)
    assert found.passes_cv == pytest.approx(statistics.stdev(passes) / 15_000)
    assert found.evaluations_mean == pytest.approx(5.0)
    assert found.quantisation == pytest.approx(0.2)
    assert found.budget_paces == pytest.approx(210.0)
    assert found.rival_budget_paces == pytest.approx(180.0)  # 1.5 x 120
    shares = [3.0 / 9.0, 3.5 / 17.5, 2.5 / 7.5]
    assert found.evaluation_share == pytest.approx(statistics.fmean(shares))


def test_the_suggested_target_is_the_median_best_less_the_margin() -> None:
    found = calibrated(CARD, FOUR, margin_sigmas=1.0)
    sigma = found.metric_sigma
    assert 0.01 < sigma < 0.1
    assert 0 <= (0.945 - sigma) - found.target < 0.001


def test_smooth_curves_one_sigma_short_never_reach() -> None:
    smooth = [curve(seed, [0.1, 0.5, 0.8, 0.9, 0.9, 0.9]) for seed in range(3)]
    assert false_reach(smooth, 0.01, ACCURACY, 9_000) == 0.0


def test_curves_that_jump_by_more_than_a_sigma_twice_running_do() -> None:
    once = [0.5, 0.52, 0.5, 0.5]
    twice = [0.5, 0.52, 0.52, 0.5]
    flat = [0.5, 0.5, 0.5, 0.5]
    curves = [curve(seed, values) for seed, values in enumerate((once, twice, flat, twice))]
    # The horizon is over after the third evaluation; all level off at 0.5.
    assert false_reach(curves, 0.01, ACCURACY, 9_000) == 0.5
    losses = [curve(seed, [1 - v for v in values]) for seed, values in enumerate((once, twice))]
    assert false_reach(losses, 0.01, LOSS, 9_000) == 0.5


def test_a_curve_that_still_falls_at_the_horizon_has_not_levelled_off_there() -> None:
    falling = [0.9, 0.5, 0.3, 0.19, 0.12, 0.1, 0.1, 0.1]
    assert false_reach([curve(0, falling)], 0.01, LOSS, 15_000) == 0.0
    # Of a curve that ends at the horizon the last three are all that there is.
    assert false_reach([curve(0, falling[:5])], 0.01, LOSS, 15_000) == 1.0


@pytest.mark.parametrize(
    ("curves", "target", "said"),
    [
        (FOUR[:1], 0.9, "1 run"),
        (FOUR, 0.98, "0 of 4 runs reach 0.98"),
        (FOUR, 0.955, "1 of 4 runs reach 0.955"),
        ([FOUR[0], curve(9, [0.1, None, 0.2])], 0.9, "seed 9 has 2 evaluations"),
    ],
)
def test_too_little_is_said(curves: list[Curve], target: float, said: str) -> None:
    with pytest.raises(TooFewError, match=said):
        calibrated(CARD, curves, margin_sigmas=3.0, target=target)


def rival(seed: int, paces: float | None, best: float = 0.5) -> Rival:
    outcome = "budget" if paces is None else "reached"
    return Rival(
        name="slow",
        seed=seed,
        target=0.9,
        budget_paces=200.0,
        outcome=outcome,
        normalised_time=paces,
        best_value=best,
    )


def test_a_rival_that_misses_is_told_apart() -> None:
    rivals = [rival(0, None, 0.3), rival(1, 50.0, 0.4), rival(2, None, 0.2)]
    found = separation("slow", rivals, FOUR, ACCURACY)
    assert (found.runs, found.reached, found.best_value) == (3, 1, 0.4)
    assert found.told_apart and found.slowdown is None


def test_a_slower_rival_is_told_apart_by_its_interval() -> None:
    found = separation("slow", [rival(s, p) for s, p in enumerate((400, 420, 410))], FOUR, ACCURACY)
    reference = [math.log(x) for x in (50.0, 120.0, 40.0)]
    own = [math.log(x) for x in (400, 420, 410)]
    ratio = math.exp(statistics.fmean(own) - statistics.fmean(reference))
    assert found.slowdown == pytest.approx(ratio)
    # Welch by hand: the reference's variance rules, with little more than 2 degrees of freedom.
    u, v = statistics.variance(own) / 3, statistics.variance(reference) / 3
    freedom = (u + v) ** 2 / (u**2 / 2 + v**2 / 2)
    assert 2.0 < freedom < 2.01
    half = 4.30 * math.sqrt(u + v)  # Student's t at 97.5 % with 2 degrees: 4.303
    assert found.low == pytest.approx(ratio * math.exp(-half), rel=0.01)
    assert found.told_apart


def test_an_equal_rival_is_not_told_apart() -> None:
    found = separation("slow", [rival(s, p) for s, p in enumerate((60, 80, 70))], FOUR, ACCURACY)
    assert found.low is not None and found.low < 1 < found.high  # type: ignore[operator]
    assert not found.told_apart


def test_a_neighbour_is_faster_only_beyond_doubt() -> None:
    for paces, faster in (((4, 4.2, 4.1), True), ((60, 80, 70), False), ((400, 420, 410), False)):
        runs = [rival(s, p) for s, p in enumerate(paces)]
        found = separation("slow", runs, FOUR, ACCURACY, neighbour=True)
        assert found.neighbour and found.faster == faster
    lucky = [rival(0, 4.0), rival(1, 4.1), rival(2, None, 0.2), rival(3, None, 0.2)]
    assert not separation("slow", lucky, FOUR, ACCURACY).faster


def test_another_rivals_runs_are_left_out() -> None:
    found = separation("fast", [rival(0, 5.0)], FOUR, ACCURACY)
    assert (found.runs, found.reached, found.best_value) == (0, 0, None)
