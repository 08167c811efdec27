"""The leaderboard: who reaches a workload's target soonest, among equals.

A row is submission source × hyperparameter point × workload version × machine class ×
tuning effort, over its untainted runs. Rows are ranked within one workload version, machine
class and tuning effort, and never across. Times are Kaplan–Meier medians: a run that missed
the target is censored at its budget, neither infinite nor dropped.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.judging import row_ranks
from harness.judging.axes import AXES, Axis, counted, figures, lower_median, time_s
from harness.judging.pareto import mark_front
from harness.judging.survival import (
    BEYOND,
    kaplan_meier_median,
    median_interval,
    restricted_mean,
)
from harness.spec import ClockKind

if TYPE_CHECKING:
    import polars

RANKED_WITHIN = ("workload", "workload_version", "machine_class", "tuning_effort")
ROW = (*RANKED_WITHIN, "submission", "source_sha256", "hyperparameters")

# What a row is made of: of a hundred thousand runs, reading all columns takes seconds.
_COLUMNS = (
    *ROW,
    *("run_id", "outcome", "tainted", "time_to_target_s", "time_without_compile_s", "compile_s"),
    *("budget_s", "pace_s", "steps_to_target", "examples_to_target"),
    *("model_passes_to_target", "energy_j"),
    *("peak_memory_bytes", "gpu_peak_memory_bytes"),
)


def leaderboard(
    home: Path,
    workload: str | None,
    clock: ClockKind,
    files: str | None = None,
    axis: str = "time",
) -> "polars.DataFrame":
    """Return the ranked rows of every workload, or of the one with the full name `workload`.

    With `files`, of the runs in the Parquet files that match, instead of those under `home`.
    Times are seconds of submission time; on the warm clock compilation is taken off them.
    `axis` is one of `harness.judging.axes.AXES`. `rank` is None where fewer than half of the
    runs reached the target, and `time_s` and other medians to it are None then: they lie beyond
    the budget. So is `time_high_s` where too few reached it for an upper end of the interval.
    """
    import polars

    groups = [(key, runs) for key, runs in measured_rows(home, files) if workload in (None, key[0])]
    made = [_row(key, runs, clock) for key, runs in groups]
    return polars.DataFrame(_ranked(made, dict(groups), clock, axis), schema=_schema())


def measured_rows(
    home: Path, files: str | None = None
) -> list[tuple[tuple[Any, ...], list[dict[str, Any]]]]:
    """Return what is measured: each row's key, in the order of ROW, and its runs."""
    from harness.records import index, parquet

    if files is None:
        sql = f"SELECT {', '.join(_COLUMNS)} FROM ({parquet.RUNS_SQL})"  # noqa: S608 - our own names
        frame = index.query(home, sql)
    else:
        frame = parquet.runs_in(files, _COLUMNS)
    return _grouped(frame.to_dicts(), ROW)


def _row(
    key: tuple[Any, ...], runs: Sequence[Mapping[str, Any]], clock: ClockKind
) -> dict[str, Any]:
    untainted = [run for run in runs if not run["tainted"]]
    evidence = counted(runs)
    seconds = [time_s(run, clock) for run in evidence]
    reached_s = [time for time, hit in seconds if hit]
    budget_s = max((run["budget_s"] for run in evidence), default=None)
    medians = {axis.field: lower_median(figures(axis, evidence, clock)) for axis in AXES.values()}
    return dict(zip(ROW, key, strict=True)) | {
        "runs": len(evidence),
        "reached": len(reached_s),
        **medians,
        "time_s": kaplan_meier_median(seconds),
        **_intervals(seconds, budget_s),
        "fastest_s": min(reached_s, default=None),
        "slowest_s": max(reached_s, default=None),
        "budget_s": budget_s,
        "peak_memory_bytes": _median(evidence, "peak_memory_bytes"),
        "gpu_peak_memory_bytes": _median(evidence, "gpu_peak_memory_bytes"),
        "tainted_left_out": len(runs) - len(untainted),
        "unfinished_left_out": len(untainted) - len(evidence),
    }


def _intervals(seconds: list[tuple[float, bool]], budget_s: float | None) -> dict[str, Any]:
    low, high = median_interval(seconds) or (None, None)
    restricted = None if budget_s is None else restricted_mean(seconds, budget_s)
    return {
        "time_low_s": None if low == BEYOND else low,
        "time_high_s": None if high == BEYOND else high,
        "restricted_mean_s": restricted and restricted.mean,
        "restricted_mean_low_s": restricted and restricted.low,
        "restricted_mean_high_s": restricted and restricted.high,
    }


def _median(runs: Iterable[Mapping[str, Any]], column: str) -> float | None:
    return lower_median(sorted(run[column] for run in runs if run[column] is not None))


def _ranked(
    rows: list[dict[str, Any]],
    runs: Mapping[tuple[Any, ...], Sequence[Mapping[str, Any]]],
    clock: ClockKind,
    axis: str,
) -> list[dict[str, Any]]:
    """Return the rows, each place's together and in order; equal figures share a rank."""
    ranked = []
    for _, group in _grouped(rows, RANKED_WITHIN):
        ordered = sorted(group, key=lambda row: _order(row, AXES[axis]))
        figures_of = [_ranking_figure(row, AXES[axis]) for row in ordered]
        ranks = [None if one is None else figures_of.index(one) + 1 for one in figures_of]
        samples = [
            None
            if rank is None
            else figures(AXES[axis], counted(runs[tuple(row[name] for name in ROW)]), clock)
            for row, rank in zip(ordered, ranks, strict=True)
        ]
        intervals = row_ranks.of_medians(samples)
        front = mark_front(ordered)
        ranked += [
            {"rank": rank, **interval, **row, **marked}
            for rank, interval, row, marked in zip(ranks, intervals, ordered, front, strict=True)
        ]
    return ranked


def _ranking_figure(row: Mapping[str, Any], axis: Axis) -> float | None:
    """Return what a row is ranked by: a submission that seldom arrives has no rank on any axis."""
    return None if row["time_s"] is None else row[axis.field]


def _order(row: Mapping[str, Any], axis: Axis) -> tuple[Any, ...]:
    figure = _ranking_figure(row, axis)
    missed = 1 - row["reached"] / row["runs"] if row["runs"] else 2.0
    return (figure is None, figure or 0.0, missed, *(str(row[name]) for name in ROW))


def _grouped(
    rows: Iterable[dict[str, Any]], columns: Sequence[str]
) -> list[tuple[tuple[Any, ...], list[dict[str, Any]]]]:
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[column] for column in columns), []).append(row)
    return sorted(groups.items(), key=lambda item: item[0])


def _schema() -> dict[str, Any]:
    import polars

    floats = (
        *("time_s", "time_low_s", "time_high_s", "fastest_s", "slowest_s", "budget_s"),
        *("restricted_mean_s", "restricted_mean_low_s", "restricted_mean_high_s"),
        *("normalised_time", "steps_to_target", "examples_to_target", "model_passes_to_target"),
        *("memory_bytes", "peak_memory_bytes", "gpu_peak_memory_bytes", "energy_j"),
    )
    kinds: dict[str, Any] = {
        **dict.fromkeys(("rank", "rank_low", "rank_high", "tied_group"), polars.Int64),
        **dict.fromkeys(ROW, polars.String),
        **dict.fromkeys(("runs", "reached"), polars.Int64),
        **dict.fromkeys(floats, polars.Float64),
        "pareto_front": polars.Boolean,
        "pareto_axes": polars.String,
        **dict.fromkeys(("tainted_left_out", "unfinished_left_out"), polars.Int64),
    }
    return kinds | {"workload_version": polars.Int64}
