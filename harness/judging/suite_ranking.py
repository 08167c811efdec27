"""The entries of a suite and their scores, ranked within machine class and tuning effort."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.judging.axes import Run, counted, time_s
from harness.judging.leaderboard import ROW, measured_rows
from harness.judging.rank_intervals import rank_intervals
from harness.judging.suite_score import Comparison, Score, Timing, score
from harness.recipe import BY_HAND_EFFORT, REFERENCE_EFFORT
from harness.spec import ClockKind

if TYPE_CHECKING:
    import polars

RANKED_WITHIN = ("machine_class", "tuning_effort")
_ENTRY = (*RANKED_WITHIN, "submission", "source_sha256", "hyperparameters")


@dataclass(kw_only=True, slots=True)
class _Entry:
    key: tuple[Any, ...]
    runs: dict[str, list[Run]] = field(default_factory=dict)  # by workload
    twice: list[str] = field(default_factory=list)  # workloads with more than one point


def suite_scores(
    home: Path, workloads: Mapping[str, int], clock: ClockKind, files: str | None = None
) -> "polars.DataFrame":
    """Return the entries of a suite, given as the workloads' names and versions.

    An entry is submission source × machine class × tuning effort, with whatever point it has on
    each workload at that effort; set by hand, each point is an entry. `score` is None, and
    `why_no_score` says why, unless it and the reference have runs on all of the workloads.
    """
    import polars

    table = scored_entries(measured_rows(home, files), workloads, clock)
    return polars.DataFrame(table, schema=_schema())


def scored_entries(
    measured: Iterable[tuple[tuple[Any, ...], Sequence[Run]]],
    workloads: Mapping[str, int],
    clock: ClockKind,
) -> list[dict[str, Any]]:
    """Return the rows of `suite_scores`, from those of `measured_rows`."""
    rows = [(dict(zip(ROW, key, strict=True)), counted(runs)) for key, runs in measured]
    rows = [
        (row, runs)
        for row, runs in rows
        if runs and workloads.get(row["workload"]) == row["workload_version"]
    ]
    references = _reference_timings(rows, clock)
    table = []
    for entry in _entries(rows):
        here = references.get(entry.key[0], {})
        why = _why_no_score(entry, workloads, here)
        found = None if why else score([_comparison(entry, w, here[w], clock) for w in workloads])
        table.append((_described(entry, workloads, found, why), found))
    return _ranked(table)


def _entries(rows: Sequence[tuple[dict[str, Any], list[Run]]]) -> list[_Entry]:
    entries: dict[tuple[Any, ...], _Entry] = {}
    for row, runs in rows:
        by_hand = row["tuning_effort"] == BY_HAND_EFFORT
        key = tuple(row[name] for name in _ENTRY[:-1])
        key = (*key, row["hyperparameters"] if by_hand else None)
        entry = entries.setdefault(key, _Entry(key=key))
        if row["workload"] in entry.runs:
            entry.twice.append(row["workload"])
        entry.runs.setdefault(row["workload"], []).extend(runs)
    return list(entries.values())


def _reference_timings(
    rows: Sequence[tuple[dict[str, Any], list[Run]]], clock: ClockKind
) -> dict[str, dict[str, Timing]]:
    """Return the reference recipe's timings by machine class and workload."""
    runs_of: dict[tuple[str, str], list[Run]] = {}
    for row, runs in rows:
        if row["tuning_effort"] == REFERENCE_EFFORT:
            runs_of.setdefault((row["machine_class"], row["workload"]), []).extend(runs)
    timings: dict[str, dict[str, Timing]] = {}
    for (machine_class, workload), runs in runs_of.items():
        timings.setdefault(machine_class, {})[workload] = _timing(runs, clock)
    return timings


def _comparison(entry: _Entry, workload: str, reference: Timing, clock: ClockKind) -> Comparison:
    ours = _timing(entry.runs[workload], clock)
    return Comparison(workload=workload, submission=ours, reference=reference)


def _timing(runs: Sequence[Run], clock: ClockKind) -> Timing:
    return Timing(
        name=" ".join(sorted(run["run_id"] for run in runs)),
        times=[time_s(run, clock) for run in runs],
        budget_s=max(run["budget_s"] for run in runs),
    )


def _why_no_score(
    entry: _Entry, workloads: Mapping[str, int], references: Mapping[str, Timing]
) -> str:
    missing = [name for name in workloads if name not in entry.runs]
    if missing:
        return f"no runs on {', '.join(missing)}"
    if entry.twice:
        return f"more than one point on {', '.join(dict.fromkeys(entry.twice))}"
    lacking = [name for name in workloads if name not in references]
    return f"the reference has no runs on {', '.join(lacking)}" if lacking else ""


def _described(
    entry: _Entry, workloads: Mapping[str, int], found: Score | None, why: str
) -> dict[str, Any]:
    return dict(zip(_ENTRY, entry.key, strict=True)) | {
        "score": found and found.score,
        "score_low": found and found.low,
        "score_high": found and found.high,
        "workloads": len(workloads),
        "workloads_run": len(entry.runs),
        "fewest_runs": min(map(len, entry.runs.values())),
        "why_no_score": why or None,
        "why_no_interval": (found and found.why) or None,
    }


def _ranked(table: Sequence[tuple[dict[str, Any], Score | None]]) -> list[dict[str, Any]]:
    ordered = sorted(table, key=lambda one: _order(one[0]))
    ranked = []
    for place in dict.fromkeys(_place(row) for row, _ in ordered):
        group = [one for one in ordered if _place(one[0]) == place]
        scores = [row["score"] for row, _ in group]
        intervals = _rank_intervals([found for _, found in group])
        for (row, _), interval in zip(group, intervals, strict=True):
            rank = None if row["score"] is None else scores.index(row["score"]) + 1
            ranked.append({"rank": rank, **interval, **row})
    return ranked


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in RANKED_WITHIN)


def _order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    scored = row["score"] is not None
    names = (str(row[name]) for name in _ENTRY[len(RANKED_WITHIN) :])
    return (*_place(row), not scored, -row["score"] if scored else 0.0, *names)


def _rank_intervals(scores: Sequence[Score | None]) -> list[dict[str, int | None]]:
    import numpy as np

    none: dict[str, int | None] = {"rank_low": None, "rank_high": None, "tied_group": None}
    found = [none] * len(scores)
    known = {n: one for n, one in enumerate(scores) if one is not None and one.ranked}
    if len(known) < 2:
        return found
    intervals = rank_intervals(
        [one.score for one in known.values()],
        np.stack([one.replicates for one in known.values()], axis=1),
        [one.degrees + 1 for one in known.values()],
    )
    for position, low, high, group in zip(
        known, intervals.low, intervals.high, intervals.tied_group, strict=True
    ):
        found[position] = {"rank_low": low, "rank_high": high, "tied_group": group}
    return found


def _schema() -> dict[str, Any]:
    import polars

    return {
        **dict.fromkeys(("rank", "rank_low", "rank_high", "tied_group"), polars.Int64),
        **dict.fromkeys(_ENTRY, polars.String),
        **dict.fromkeys(("score", "score_low", "score_high"), polars.Float64),
        **dict.fromkeys(("workloads", "workloads_run", "fewest_runs"), polars.Int64),
        **dict.fromkeys(("why_no_score", "why_no_interval"), polars.String),
    }
