"""From curves to the figures on a card: pure arithmetic, no run and no clock."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import t

from harness.calibration.evidence import Curve, Point, Rival, values
from harness.cards import Metric, WorkloadCard

# What a card has to keep (CONTRIBUTING, "Add a workload").
REACHED_AT_LEAST = 0.95
CV_AIM = 0.10
QUANTISATION_AT_MOST = 0.05
FALSE_REACH_AT_MOST = 0.05
BUDGET_OVER_TIME = 3.0
RIVAL_BUDGET_OVER_SLOWEST = 1.5
LEVEL_POINTS = 3  # evaluations at the end of the horizon that give a run's level


class TooFewError(Exception):
    """The curves do not carry the figures; the message says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Crossing:
    """The first of two evaluations running that met a target."""

    number: int  # of the evaluation, counted from 1
    model_passes: int
    elapsed_s: float
    evaluation_share: float  # of the wall time up to the confirming evaluation


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What the curves say. `cv` is sd ÷ mean over the runs that reached the target."""

    runs: int
    untainted: int
    reached: int
    best_median: float
    metric_sigma: float  # sd over seeds of the level at the end of the horizon
    margin_sigmas: float
    target: float
    seconds_mean: float
    seconds_sd: float
    paces_mean: float
    time_cv: float
    passes_mean: float
    passes_cv: float
    evaluations_mean: float
    evaluation_share: float
    quantisation: float  # grid ÷ passes to the target
    false_reach_chance: float  # share of curves, shifted one sigma short, that reached
    budget_paces: float
    rival_budget_paces: float  # beyond every run of the reference: who misses it is slower


@dataclass(frozen=True, kw_only=True, slots=True)
class Separation:
    """A rival recipe beside the reference, in paces to the target."""

    name: str
    runs: int
    reached: int
    slowdown: float | None  # geometric mean of rival ÷ reference; None: too few reached
    low: float | None  # 95 % interval (Welch on logs)
    high: float | None
    best_value: float | None
    neighbour: bool = False  # near the reference's own point: it need not be told apart

    @property
    def faster(self) -> bool:
        """Whether it beats the reference beyond doubt."""
        return 2 * self.reached > self.runs and self.high is not None and self.high < 1

    @property
    def told_apart(self) -> bool:
        """Whether it misses the target half the time or more, or is slower beyond doubt."""
        if 2 * self.reached <= self.runs:
            return True
        return self.low is not None and self.low > 1


def find_crossing(points: Sequence[Point], metric: Metric) -> Crossing | None:
    """Return the confirmed crossing of `metric.target`, None where there is none."""
    meets = [point.value is not None and metric.meets(point.value) for point in points]
    for i in range(len(points) - 1):
        if meets[i] and meets[i + 1]:
            off_clock_s = sum(point.off_clock_s for point in points[: i + 2])
            return Crossing(
                number=i + 1,
                model_passes=points[i].model_passes,
                elapsed_s=points[i].elapsed_s,
                evaluation_share=off_clock_s / (off_clock_s + points[i + 1].elapsed_s),
            )
    return None


def with_target(metric: Metric, target: float) -> Metric:
    """Return the metric with another target."""
    return Metric(name=metric.name, direction=metric.direction, target=target)


def calibrated(
    card: WorkloadCard, curves: Sequence[Curve], margin_sigmas: float, target: float | None = None
) -> Figures:
    """Return the figures of `curves`, with a given target or the one that they suggest.

    The target suggested is the median of the runs' best values within the horizon, backed off
    by `margin_sigmas` times the spread of their levels at its end.

    Raises:
        TooFewError: fewer than two curves, or fewer than two of them reach the target.
    """
    if len(curves) < 2:
        raise TooFewError(f"{len(curves)} run of the reference is too few for a spread")
    metric = card.metric
    horizon_passes = card.passes_per_reference_step * card.horizon_examples // card.batch_size
    within = [[p for p in curve.points if p.model_passes <= horizon_passes] for curve in curves]
    for curve, points in zip(curves, within, strict=True):
        if len(values(points)) < LEVEL_POINTS:
            raise TooFewError(
                f"seed {curve.seed} has {len(values(points))} evaluations within the horizon; "
                f"it ended as {curve.ended}"
            )
    best = [best_value(metric, points) for points in within]
    levels = [statistics.fmean(values(points)[-LEVEL_POINTS:]) for points in within]
    sigma = statistics.stdev(levels)
    best_median = statistics.median(best)
    if target is None:
        target = backed_off(best_median, sigma, margin_sigmas, metric)
    aimed = with_target(metric, target)
    crossings = [find_crossing(curve.points, aimed) for curve in curves]
    reached = [(c, curve) for c, curve in zip(crossings, curves, strict=True) if c is not None]
    if len(reached) < 2:
        raise TooFewError(f"{len(reached)} of {len(curves)} runs reach {target:g}: no spread")
    seconds = [crossing.elapsed_s for crossing, _ in reached]
    paces = [crossing.elapsed_s / curve.pace_s for crossing, curve in reached]
    passes = [crossing.model_passes for crossing, _ in reached]
    mean_paces, mean_passes = statistics.fmean(paces), statistics.fmean(passes)
    return Figures(
        runs=len(curves),
        untainted=sum(not curve.tainted for curve in curves),
        reached=len(reached),
        best_median=best_median,
        metric_sigma=sigma,
        margin_sigmas=margin_sigmas,
        target=target,
        seconds_mean=statistics.fmean(seconds),
        seconds_sd=statistics.stdev(seconds),
        paces_mean=mean_paces,
        time_cv=statistics.stdev(paces) / mean_paces,
        passes_mean=mean_passes,
        passes_cv=statistics.stdev(passes) / mean_passes,
        evaluations_mean=statistics.fmean(crossing.number for crossing, _ in reached),
        evaluation_share=statistics.fmean(crossing.evaluation_share for crossing, _ in reached),
        quantisation=card.grid_model_passes / mean_passes,
        false_reach_chance=false_reach(curves, sigma, aimed, horizon_passes),
        budget_paces=round_up(BUDGET_OVER_TIME * mean_paces),
        rival_budget_paces=round_up(RIVAL_BUDGET_OVER_SLOWEST * max(paces)),
    )


def false_reach(
    curves: Sequence[Curve], sigma: float, metric: Metric, horizon_passes: float
) -> float:
    """Return the share of curves that would be called reached, were each one sigma too bad.

    Each whole curve is shifted so that it levels off one sigma short of the target: where it
    lies on average once the horizon is over and the learning rate at its end. What then
    crosses, crosses by noise and by looking often.
    """
    short = metric.target + (-sigma if metric.direction == "maximise" else sigma)
    called = 0
    for curve in curves:
        after = values(p for p in curve.points if p.model_passes > horizon_passes)
        level = statistics.fmean(after or values(curve.points)[-LEVEL_POINTS:])
        shifted = [
            Point(
                model_passes=p.model_passes,
                elapsed_s=p.elapsed_s,
                value=None if p.value is None else p.value + (short - level),
                off_clock_s=p.off_clock_s,
            )
            for p in curve.points
        ]
        called += find_crossing(shifted, metric) is not None
    return called / len(curves)


def best_value(metric: Metric, points: Sequence[Point]) -> float:
    """Return the best value of some points, one of which is a number."""
    found = values(points)
    return max(found) if metric.direction == "maximise" else min(found)


def backed_off(best: float, sigma: float, margin_sigmas: float, metric: Metric) -> float:
    """Return `best` less a margin, rounded to the easier side at a tenth of sigma's decade."""
    if sigma <= 0:
        return best
    digits = 1 - math.floor(math.log10(sigma))
    sign = 1 if metric.direction == "maximise" else -1
    scaled = (best - sign * margin_sigmas * sigma) * 10**digits
    # A hair's breadth, so that 0.97 x 10^4 = 9699.999… is not rounded to 9699.
    easier = math.floor(scaled + 1e-9) if sign > 0 else math.ceil(scaled - 1e-9)
    rounded: float = round(easier / 10**digits, digits)
    return rounded


def round_up(value: float) -> float:
    """Return `value` rounded up to two significant digits."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(round(value / unit, 9)) * unit


def separation(
    name: str,
    rivals: Sequence[Rival],
    curves: Sequence[Curve],
    metric: Metric,
    *,
    neighbour: bool = False,
) -> Separation:
    """Compare the runs of one rival with the reference's curves."""
    own = [rival for rival in rivals if rival.name == name]
    times = [rival.normalised_time for rival in own if rival.normalised_time is not None]
    reference = [
        crossing.elapsed_s / curve.pace_s
        for curve in curves
        if (crossing := find_crossing(curve.points, metric)) is not None
    ]
    bests = [rival.best_value for rival in own if rival.best_value is not None]
    best = None
    if bests:
        best = max(bests) if metric.direction == "maximise" else min(bests)
    slowdown, low, high = _ratio_of_logs(times, reference)
    return Separation(
        name=name,
        runs=len(own),
        reached=len(times),
        slowdown=slowdown,
        low=low,
        high=high,
        best_value=best,
        neighbour=neighbour,
    )


def _ratio_of_logs(
    first: Sequence[float], second: Sequence[float]
) -> tuple[float | None, float | None, float | None]:
    """Return the ratio of geometric means and its 95 % interval by Welch's t on logs."""
    if len(first) < 2 or len(second) < 2:
        return None, None, None
    a, b = [math.log(x) for x in first], [math.log(x) for x in second]
    u, v = statistics.variance(a) / len(a), statistics.variance(b) / len(b)
    mean = statistics.fmean(a) - statistics.fmean(b)
    if u + v == 0:
        return math.exp(mean), math.exp(mean), math.exp(mean)
    freedom = (u + v) ** 2 / (u**2 / (len(a) - 1) + v**2 / (len(b) - 1))
    half = float(t.ppf(0.975, freedom)) * math.sqrt(u + v)
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)
