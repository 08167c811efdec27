"""The learning curves of a report: a median and some single runs for each row that is drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.judging.learning_curves import median_curves, traces
from harness.reports.gathering import Gathered, Row, Section

if TYPE_CHECKING:
    import polars


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How much is drawn, so that ten thousand runs fit a page of a few megabytes."""

    series: int = 400  # in all figures together
    traces: int = 8  # of a series
    points: int = 40_000  # of all traces together, and as many again of all medians
    points_of_a_trace: int = 160


@dataclass(frozen=True, kw_only=True, slots=True)
class Points:
    """A curve: the metric against each abscissa. A value is None where it was not a number."""

    elapsed_s: Sequence[float]
    steps: Sequence[float]
    examples: Sequence[float]
    model_passes: Sequence[float]
    value: Sequence[float | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """One run's curve."""

    run: Mapping[str, Any]
    points: Points


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """A row's curves; `median` is None where no run counts."""

    row: Row
    median: Points | None
    traces: Sequence[Trace]


def learning_curves(gathered: Gathered, limits: Limits) -> list[list[Series]]:
    """Return the series of each section, in the sections' order."""
    most = max(1, limits.series // max(1, len(gathered.sections)))
    drawn = [drawn_rows(section)[:most] for section in gathered.sections]
    rows = [row for section in drawn for row in section]
    medians = _medians(gathered, rows, limits)
    chosen = _chosen_runs(rows, limits)
    curves = _traces(gathered, chosen, limits)
    series = iter(
        Series(
            row=row,
            median=medians.get(number),
            traces=[
                Trace(run=run, points=curves[run["run_id"]])
                for run in runs
                if run["run_id"] in curves
            ],
        )
        for number, (row, runs) in enumerate(zip(rows, chosen, strict=True))
    )
    return [[next(series) for _ in section] for section in drawn]


def drawn_rows(section: Section) -> list[Row]:
    """Return the best row of each submission and tuning effort; more would hide each other.

    The rows of a first rank come first, then those of a second one, and so on.
    """
    best: dict[tuple[str, str], Row] = {}
    for row in section.rows:
        best.setdefault((row.submission, row.effort), row)
    efforts = {effort: section.of_effort(effort) for effort in section.efforts}
    return sorted(best.values(), key=lambda row: efforts[row.effort].index(row))


def _chosen_runs(rows: Sequence[Row], limits: Limits) -> list[list[Mapping[str, Any]]]:
    """Return the runs whose traces are drawn: the counted ones, or all where none counts."""
    return [_spread(row.counted or row.runs, limits.traces) for row in rows]


def _spread(runs: Sequence[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """Return at most so many runs, spread evenly from the fastest to those that missed."""
    ordered = sorted(runs, key=lambda run: (run["time_s"] is None, run["time_s"] or 0.0))
    if len(ordered) <= most:
        return ordered
    return [ordered[round(n * (len(ordered) - 1) / (most - 1))] for n in range(most)]


def _medians(gathered: Gathered, rows: Sequence[Row], limits: Limits) -> dict[int, Points]:
    ids = [[run["run_id"] for run in row.counted] for row in rows]
    frame = median_curves(gathered.home, ids, gathered.clock)
    most = _points_each(len(rows), limits)
    return {
        int(number): _points(_thinned(part, most))
        for (number,), part in frame.group_by("row", maintain_order=True)
    }


def _traces(
    gathered: Gathered, chosen: Sequence[Sequence[Mapping[str, Any]]], limits: Limits
) -> dict[str, Points]:
    ids = [run["run_id"] for runs in chosen for run in runs]
    frame = traces(gathered.home, ids, gathered.clock, _points_each(len(ids), limits))
    return {
        str(run_id): _points(part)
        for (run_id,), part in frame.group_by("run_id", maintain_order=True)
    }


def _points_each(curves: int, limits: Limits) -> int:
    return max(8, min(limits.points_of_a_trace, limits.points // max(1, curves)))


def _thinned(frame: "polars.DataFrame", most: int) -> "polars.DataFrame":
    stride = -(-len(frame) // most)
    last = len(frame) - 1
    kept = [n for n in range(len(frame)) if n % stride == 0 or n == last]
    return frame if stride <= 1 else frame[kept]


def _points(frame: "polars.DataFrame") -> Points:
    return Points(
        elapsed_s=frame["elapsed_s"].to_list(),
        steps=frame["steps"].to_list(),
        examples=frame["examples"].to_list(),
        model_passes=frame["model_passes"].to_list(),
        value=[
            None if value is None or value != value else value  # noqa: PLR0124 - not a number
            for value in frame["value"]
        ],
    )
