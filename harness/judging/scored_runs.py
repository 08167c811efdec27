"""A home's own runs as pools for AlgoPerf's score: one a machine class and tuning effort.

Runs of a ruleset have its studies and trials, and the fastest trial is a study's time. A run made
by itself is a study. Targets, outcomes and times are those of the record: a workload's target is
its card's, and reaching it takes a confirming evaluation, which AlgoPerf does not ask for.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import catalogue
from harness.judging.axes import counted
from harness.judging.performance_profile import Pool
from harness.spec import TIME_FIELDS, ClockKind

_COLUMNS = (
    *("run_id", "submission", "source_sha256", "hyperparameters", "tuning_effort"),
    *("machine_class", "workload", "workload_version", "outcome", "tainted", "budget_s"),
    *("time_to_target_s", "time_without_compile_s", "ruleset", "study", "trial"),
)

Run = Mapping[str, Any]
_Entry = tuple[str, str, str | None]  # submission, source, and its point where it has several


@dataclass(frozen=True, kw_only=True, slots=True)
class RunsPool:
    """A pool of runs with what its entries are."""

    machine_class: str
    tuning_effort: str
    pool: Pool
    submission_of: dict[str, str]  # by entry; an entry is a submission's point, of several
    versions: dict[str, int]  # by workload
    budgets_s: dict[str, float]  # by workload
    notes: list[str]


def pools_of_runs(
    home: Path, names: Sequence[str] | None, clock: ClockKind, files: str | None
) -> list[RunsPool]:
    """Return the pools of the untainted runs in `home`, or in Parquet files.

    With `names` a score is the average over these workloads, run or not, otherwise over those
    that were run. A held-out variant counts where its workload does.
    """
    runs = [run for run in _runs(home, files) if names is None or run["workload"] in names]
    by_place: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        by_place.setdefault((run["machine_class"], run["tuning_effort"]), []).append(run)
    return [
        _pool(machine_class, effort, group, names, clock)
        for (machine_class, effort), group in sorted(by_place.items())
    ]


def _runs(home: Path, files: str | None) -> Sequence[Run]:
    from harness.records import parquet

    sql = f"SELECT {', '.join(_COLUMNS)} FROM measured ORDER BY run_id"  # noqa: S608 - our own names
    rows = parquet.measured(home, sql) if files is None else parquet.measured_in(files, sql)
    return [dict(zip(_COLUMNS, row, strict=True)) for row in rows]


def _pool(
    machine_class: str,
    effort: str,
    runs: Sequence[Run],
    names: Sequence[str] | None,
    clock: ClockKind,
) -> RunsPool:
    evidence = counted(runs)
    versions: dict[str, int] = {}
    for run in evidence:
        workload = run["workload"]
        versions[workload] = max(run["workload_version"], versions.get(workload, 0))
    current = [run for run in evidence if run["workload_version"] == versions[run["workload"]]]
    bases, variants, homeless = _columns(names or sorted(versions))
    entries = _entries(current)
    labels = _labels(sorted(set(entries.values()), key=str))
    budgets: dict[str, float] = {}
    for run in current:
        budgets[run["workload"]] = max(run["budget_s"], budgets.get(run["workload"], 0.0))
    left_out = {
        "tainted or without an end of their own": len(runs) - len(evidence),
        "of an older version of their workload": len(evidence) - len(current),
    }
    notes = [f"Runs {why} are left out: {number}." for why, number in left_out.items() if number]
    return RunsPool(
        machine_class=machine_class,
        tuning_effort=effort,
        pool=Pool(
            submissions=tuple(labels.values()),
            workloads=bases,
            study_times=_study_times(
                [run for run in current if run["workload"] in {*bases, *variants}],
                {run_id: labels[entry] for run_id, entry in entries.items()},
                clock,
            ),
            variants=variants,
        ),
        submission_of={label: entry[0] for entry, label in labels.items()},
        versions=versions,
        budgets_s={name: budgets.get(name, math.nan) for name in bases},
        notes=notes + homeless,
    )


def _columns(names: Iterable[str]) -> tuple[tuple[str, ...], dict[str, str], list[str]]:
    """Return the workloads that count, the variants that decide over them, and notes."""
    known = catalogue.workloads()
    base_of = {
        name: known[name].card.variant_of if name in known else None for name in sorted(names)
    }
    bases = tuple(name for name, base in base_of.items() if base is None)
    variants = {name: base for name, base in base_of.items() if base in bases and base is not None}
    notes = [
        f"{name} is a held-out variant of {base}, which is not among the workloads: left out."
        for name, base in base_of.items()
        if base is not None and base not in bases
    ]
    return bases, variants, notes


def _study_times(
    runs: Iterable[Run], entry_of: Mapping[str, str], clock: ClockKind
) -> dict[tuple[str, str], list[float]]:
    fastest: dict[tuple[str, str], dict[tuple[object, ...], float]] = {}
    for run in runs:
        studies = fastest.setdefault((entry_of[run["run_id"]], run["workload"]), {})
        alone = run["study"] is None
        study = (run["run_id"],) if alone else (run["ruleset"], run["study"])
        studies[study] = min(_seconds(run, clock), studies.get(study, math.inf))
    return {pair: list(studies.values()) for pair, studies in fastest.items()}


def _seconds(run: Run, clock: ClockKind) -> float:
    if run["outcome"] != "reached":
        return math.inf
    return float(run[TIME_FIELDS[clock]])


def _entries(runs: Sequence[Run]) -> dict[str, _Entry]:
    """Return the entry of each run, by id.

    A point is part of an entry's identity only where a submission has several on one workload:
    its tuned points, and what it takes from the reference recipe, differ between workloads. Under
    an external ruleset the points are the trials of one entry.
    """
    points: dict[tuple[str, str, str], set[str]] = {}
    for run in runs:
        if not _tried(run):
            place = (run["submission"], run["source_sha256"], run["workload"])
            points.setdefault(place, set()).add(run["hyperparameters"])
    several = {place[:2] for place, found in points.items() if len(found) > 1}
    entries: dict[str, _Entry] = {}
    for run in runs:
        method = (run["submission"], run["source_sha256"])
        apart = method in several and not _tried(run)
        entries[run["run_id"]] = (*method, run["hyperparameters"] if apart else None)
    return entries


def _tried(run: Run) -> bool:
    return str(run["tuning_effort"]).startswith("trial of ")  # harness.sweeps.jobs


def _labels(entries: Sequence[_Entry]) -> dict[_Entry, str]:
    """Return a name for each entry: the submission's, and what tells it from its namesakes."""
    namesakes: dict[str, list[_Entry]] = {}
    for entry in entries:
        namesakes.setdefault(entry[0], []).append(entry)
    labels = {}
    for submission, alike in namesakes.items():
        points = {entry: json.loads(entry[2] or "{}") for entry in alike}
        tuned = [point for entry, point in points.items() if entry[2] is not None]
        differing = {
            name
            for name in dict.fromkeys(name for point in tuned for name in point)
            if len({json.dumps(point.get(name)) for point in tuned}) > 1
        }
        several_sources = len({entry[1] for entry in alike}) > 1
        for entry, point in points.items():
            apart = [f"{name}={value}" for name, value in point.items() if name in differing]
            apart += [f"source {entry[1][:8]}"] if several_sources else []
            labels[entry] = f"{submission} ({', '.join(apart)})" if apart else submission
    return {entry: labels[entry] for entry in entries}
