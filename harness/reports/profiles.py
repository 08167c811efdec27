"""Performance profiles: over several workloads, how often somebody is how near the fastest."""

import collections
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.judging.performance_profile import (
    TAUS,
    Pool,
    median_times,
    profiles,
    ratios,
    scores,
)
from harness.reports.gathering import Gathered, Row


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Submissions of one machine class and tuning effort, over two workloads or more.

    `shares[i][k]` is the share of `workloads` on which submission i took at most `taus[k]` times
    the fastest one's time; `scores` are AlgoPerf's, the area under it; `run_on` says on how many
    it was run. A workload that it was not run on counts as missed.
    """

    machine_class: str
    effort: str
    workloads: Sequence[str]
    submissions: Sequence[str]
    taus: Sequence[float]
    shares: Sequence[Sequence[float]]
    scores: Sequence[float]
    run_on: Sequence[int]


def performance_profiles(gathered: Gathered) -> list[Profile]:
    """Return a profile wherever there is one: over the selected workloads, among all submissions.

    Who is the fastest is judged among all that were measured, whoever is shown.
    """
    chosen = gathered.selection.workloads
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in gathered.measured:
        if row.counted and (chosen is None or row.figures["workload"] in chosen):
            key = (row.figures["machine_class"], row.effort)
            groups.setdefault(key, []).append(row)
    found = [_profile(*key, rows, gathered) for key, rows in groups.items()]
    return [profile for profile in found if profile is not None]


def _profile(
    machine_class: str, effort: str, rows: Sequence[Row], gathered: Gathered
) -> Profile | None:
    best: dict[tuple[str, str], Row] = {}
    for row in rows:  # the better ones come first
        best.setdefault((row.submission, _workload(row)), row)
    submissions, workloads = _compared(set(best))
    if not submissions:
        return None
    pool = Pool(
        submissions=submissions,
        workloads=workloads,
        study_times={
            pair: [_seconds(run) for run in row.counted]
            for pair, row in best.items()
            if pair[0] in submissions and pair[1] in workloads
        },
    )
    to_fastest = ratios(median_times(pool), pool)
    shares, areas = profiles(to_fastest), scores(to_fastest)
    shown = [
        number
        for number, name in enumerate(submissions)
        if gathered.selection.submissions is None or name in gathered.selection.submissions
    ]
    shown.sort(key=lambda number: -float(areas[number]))
    return Profile(
        machine_class=machine_class,
        effort=effort,
        workloads=workloads,
        submissions=[submissions[number] for number in shown],
        taus=[float(tau) for tau in TAUS],
        shares=[[float(share) for share in shares[number]] for number in shown],
        scores=[float(areas[number]) for number in shown],
        run_on=[
            sum((submissions[number], workload) in pool.study_times for workload in workloads)
            for number in shown
        ],
    )


def _compared(pairs: set[tuple[str, str]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the submissions and workloads that have two of the other each, none if there are none.

    A workload that one submission ran compares nothing, nor does a submission that ran one: it
    would be shown to miss all others.
    """
    while True:
        by_submission = collections.Counter(submission for submission, _ in pairs)
        by_workload = collections.Counter(workload for _, workload in pairs)
        kept = {
            (submission, workload)
            for submission, workload in pairs
            if by_submission[submission] > 1 and by_workload[workload] > 1
        }
        if kept == pairs:
            return tuple(sorted(by_submission)), tuple(sorted(by_workload))
        pairs = kept


def _workload(row: Row) -> str:
    return f"{row.figures['workload']} v{row.figures['workload_version']}"


def _seconds(run: Any) -> float:
    return float(run["time_s"]) if run["outcome"] == "reached" else math.inf
