"""The leaderboard: who reaches a workload's target soonest, among equals.

A row is submission source × hyperparameter point × workload version × machine class ×
tuning effort, over its untainted runs. Rows are ranked within one workload version, machine
class and tuning effort, and never across. Times are Kaplan–Meier medians: a run that missed
the target is censored at its budget, neither infinite nor dropped.
"""

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.spec import ClockKind

if TYPE_CHECKING:
    import polars

# A run with one of these ends says nothing of how long the submission takes.
NO_EVIDENCE = frozenset({"interrupted", "stopped", "skipped"})

RANKED_WITHIN = ("workload", "workload_version", "machine_class", "tuning_effort")
_ROW = (*RANKED_WITHIN, "submission", "source_sha256", "hyperparameters")

# What a row is made of, of each of its runs.
_FIGURES = (
    *("run_id", "outcome", "time_to_target_s", "time_without_compile_s", "compile_s"),
    *("budget_s", "pace_s", "steps_to_target", "model_passes_to_target", "energy_j"),
    *("peak_memory_bytes", "gpu_peak_memory_bytes"),
)

# Grouped where the runs lie: of a hundred thousand, carrying each one's key takes seconds.
_ROWS_SQL = f"""
    SELECT {", ".join(_ROW)}, list({{
        'tainted': len(tainted) > 0, {", ".join(f"'{name}': {name}" for name in _FIGURES)}
    }} ORDER BY run_id)
    FROM measured GROUP BY ALL
"""  # noqa: S608 - our own names


def leaderboard(
    home: Path, workload: str | None, clock: ClockKind, files: str | None = None
) -> "polars.DataFrame":
    """Return the ranked rows of every workload, or of the one with the full name `workload`.

    With `files`, of the runs in the Parquet files that match, instead of those under `home`.
    Times are seconds of submission time; on the warm clock compilation is taken off them.
    `rank` is None where fewer than half of the runs reached the target, and `time_s` is None
    then: the median lies beyond the budget.
    """
    import polars

    from harness.records import parquet

    groups = (
        parquet.measured(home, _ROWS_SQL)
        if files is None
        else parquet.measured_in(files, _ROWS_SQL)
    )
    made = [
        _row(key, runs, clock)
        for *key, runs in sorted(groups, key=lambda group: group[: len(_ROW)])
        if workload is None or key[0] == workload
    ]
    rows = _ranked(made)
    return polars.DataFrame(rows, schema=_schema())


def kaplan_meier_median(times: Iterable[tuple[float, bool]]) -> float | None:
    """Return the smallest time by which half have reached the target, None if none is.

    `times` holds for each run a time and whether it reached the target then; if not, nothing
    is known of the run from that time on. Kaplan & Meier, "Nonparametric Estimation from
    Incomplete Observations", JASA 53, 1958. A run censored at a time at which others reach
    the target counts as one that had not reached it. Without censored runs this is the lower
    median.
    """
    ordered = sorted(times)
    at_risk = since = len(ordered)
    # S = surviving × at_risk ÷ since, exact: a half reached by rounding would be another median.
    surviving = Fraction(1)  # when a run was last censored, with `since` at risk after it
    for time, group in itertools.groupby(ordered, key=_moment):
        here = [reached for _, reached in group]
        hits = sum(here)
        at_risk -= hits
        if 2 * surviving.numerator * at_risk <= surviving.denominator * since:
            return time
        if hits < len(here):
            surviving *= Fraction(at_risk, since)
            at_risk -= len(here) - hits
            since = at_risk
    return None


def _moment(one: tuple[float, bool]) -> float:
    return one[0]


def _row(key: Sequence[Any], runs: Sequence[Mapping[str, Any]], clock: ClockKind) -> dict[str, Any]:
    untainted = [run for run in runs if not run["tainted"]]
    counted = [run for run in untainted if run["outcome"] not in NO_EVIDENCE]
    reached = [run for run in counted if run["outcome"] == "reached"]
    seconds = [_time_s(run, clock) for run in counted]
    paces = [(time / run["pace_s"], hit) for run, (time, hit) in zip(counted, seconds, strict=True)]
    reached_s = [time for time, hit in seconds if hit]
    return dict(zip(_ROW, key, strict=True)) | {
        "runs": len(counted),
        "reached": len(reached),
        "time_s": kaplan_meier_median(seconds),
        "fastest_s": min(reached_s, default=None),
        "slowest_s": max(reached_s, default=None),
        "budget_s": max((run["budget_s"] for run in counted), default=None),
        "normalised_time": kaplan_meier_median(paces),
        "steps_to_target": _median(reached, "steps_to_target"),
        "model_passes_to_target": _median(reached, "model_passes_to_target"),
        "peak_memory_bytes": _median(counted, "peak_memory_bytes"),
        "gpu_peak_memory_bytes": _median(counted, "gpu_peak_memory_bytes"),
        "energy_j": _median(reached, "energy_j"),
        "tainted_left_out": len(runs) - len(untainted),
        "unfinished_left_out": len(untainted) - len(counted),
    }


def _time_s(run: Mapping[str, Any], clock: ClockKind) -> tuple[float, bool]:
    if run["outcome"] == "reached":
        column = "time_to_target_s" if clock == "cold" else "time_without_compile_s"
        return run[column], True
    # Whatever ended the run, it will never reach the target within its budget; on the warm
    # clock the budget ends sooner, by what the run spent on compilation.
    return run["budget_s"] - (run["compile_s"] or 0.0 if clock == "warm" else 0.0), False


def _median(runs: Iterable[Mapping[str, Any]], column: str) -> float | None:
    values = [run[column] for run in runs if run[column] is not None]
    return statistics.median(values) if values else None


def _ranked(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows, each place's together and in order; equal times share a rank."""
    ranked = []
    for _, group in _grouped(rows, RANKED_WITHIN):
        ordered = sorted(group, key=_order)
        times = [row["time_s"] for row in ordered]
        for row in ordered:
            rank = None if row["time_s"] is None else times.index(row["time_s"]) + 1
            ranked.append({"rank": rank, **row})
    return ranked


def _order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    time_s = row["time_s"]
    missed = 1 - row["reached"] / row["runs"] if row["runs"] else 2.0
    return (time_s is None, time_s or 0.0, missed, *(str(row[name]) for name in _ROW))


def _grouped(
    rows: Iterable[dict[str, Any]], columns: Sequence[str]
) -> list[tuple[tuple[Any, ...], list[dict[str, Any]]]]:
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[column] for column in columns), []).append(row)
    return sorted(groups.items(), key=lambda item: item[0])


def _schema() -> dict[str, Any]:
    import polars

    kinds: dict[str, Any] = {
        "rank": polars.Int64,
        **dict.fromkeys(_ROW, polars.String),
        "runs": polars.Int64,
        "reached": polars.Int64,
        **dict.fromkeys(("time_s", "fastest_s", "slowest_s", "budget_s"), polars.Float64),
        "normalised_time": polars.Float64,
        **dict.fromkeys(("steps_to_target", "model_passes_to_target"), polars.Float64),
        **dict.fromkeys(("peak_memory_bytes", "gpu_peak_memory_bytes"), polars.Float64),
        "energy_j": polars.Float64,
        **dict.fromkeys(("tainted_left_out", "unfinished_left_out"), polars.Int64),
    }
    return kinds | {"workload_version": polars.Int64}
