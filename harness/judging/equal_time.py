"""The metric at equal time: how far each row had come when so much time was gone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.judging import row_ranks
from harness.judging.axes import counted, lower_median
from harness.judging.leaderboard import RANKED_WITHIN, ROW, measured_rows
from harness.spec import ClockKind

if TYPE_CHECKING:
    import polars


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """A submission time, in seconds or in paces of the workload."""

    amount: float
    unit: str  # s or paces

    def __str__(self) -> str:
        return f"{self.amount:g} {self.unit}"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Progress:
    value: float | None  # the best by then; None before the first evaluation
    ended: bool  # the run, by then: it got no further
    maximise: bool


def metric_at(home: Path, moment: Moment, clock: ClockKind) -> "polars.DataFrame":
    """Return the rows of every workload, ranked by the median run's best metric at a moment.

    `metric` is the value that half of the runs had reached, from evaluations alone, with nothing
    interpolated; None where half had no evaluation yet. A run that had ended keeps its best
    value: it stops soon after it reaches the target, so beyond the target values are of little
    account. `ended` counts such runs.
    """
    import polars

    progress = _progress(home, moment, clock)
    rows: dict[tuple[Any, ...], list[tuple[dict[str, Any], list[float]]]] = {}
    for key, runs in measured_rows(home):
        known = [progress[run["run_id"]] for run in counted(runs)]
        if known:
            sign = -1.0 if known[0].maximise else 1.0
            shortfalls = sorted(
                math.inf if one.value is None else sign * one.value for one in known
            )
            row = dict(zip(ROW, key, strict=True)) | {
                "runs": len(known),
                "metric": _signed(sign, lower_median(shortfalls)),
                "best": _signed(sign, _finite(shortfalls[0])),
                "worst": _signed(sign, _finite(shortfalls[-1])),
                "ended": sum(one.ended for one in known),
            }
            rows.setdefault(key[: len(RANKED_WITHIN)], []).append((row, shortfalls))
    ranked = [row for group in rows.values() for row in _ranked(group)]
    return polars.DataFrame(ranked, schema=_schema())


def _progress(home: Path, moment: Moment, clock: ClockKind) -> Mapping[str, _Progress]:
    from harness.records import index, parquet

    # A number and words of our own, no text from outside: nothing to quote.
    limit = f"{moment.amount!r}{' * r.pace_s' if moment.unit == 'paces' else ''}"
    elapsed, ended = (
        ("e.elapsed_s - e.compile_s", "r.submission_time_s - coalesce(r.compile_s, 0)")
        if clock == "warm"
        else ("e.elapsed_s", "r.submission_time_s")
    )
    sql = f"""
        SELECT r.run_id, r.direction, {ended} <= {limit} AS ended,
            CASE r.direction WHEN 'maximise' THEN max(e.value) ELSE min(e.value) END AS value
        FROM ({parquet.RUNS_SQL}) AS r LEFT JOIN evaluations AS e
            ON e.run_id = r.run_id AND {elapsed} <= {limit} AND isfinite(e.value)
        GROUP BY r.run_id, r.direction, r.submission_time_s, r.compile_s, r.pace_s
    """  # noqa: S608
    rows = index.query(home, sql).to_dicts()
    return {
        row["run_id"]: _Progress(
            value=row["value"], ended=row["ended"], maximise=row["direction"] == "maximise"
        )
        for row in rows
    }


def _finite(value: float) -> float | None:
    return None if math.isinf(value) else value


def _signed(sign: float, shortfall: float | None) -> float | None:
    return None if shortfall is None else sign * shortfall


def _ranked(group: Sequence[tuple[dict[str, Any], list[float]]]) -> list[dict[str, Any]]:
    def order(one: tuple[dict[str, Any], list[float]]) -> tuple[Any, ...]:
        median = lower_median(one[1])
        return (median is None, median or 0.0, *(str(one[0][name]) for name in ROW))

    ordered = sorted(group, key=order)
    values = [row["metric"] for row, _ in ordered]
    intervals = row_ranks.of_medians(
        [None if row["metric"] is None else shortfalls for row, shortfalls in ordered]
    )
    return [
        {"rank": None if value is None else values.index(value) + 1, **interval, **row}
        for value, interval, (row, _) in zip(values, intervals, ordered, strict=True)
    ]


def _schema() -> dict[str, Any]:
    import polars

    kinds: dict[str, Any] = {
        **dict.fromkeys(("rank", "rank_low", "rank_high", "tied_group"), polars.Int64),
        **dict.fromkeys(ROW, polars.String),
        "runs": polars.Int64,
        **dict.fromkeys(("metric", "best", "worst"), polars.Float64),
        "ended": polars.Int64,
    }
    return kinds | {"workload_version": polars.Int64}
