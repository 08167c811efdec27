"""Performance profiles: over several workloads, how often somebody is how near the fastest."""

import collections
from collections.abc import Sequence
from dataclasses import dataclass

from harness.judging.performance_profile import (
    TAUS,
    Pool,
    median_times,
    profiles,
    ratios,
    scores,
)
from harness.judging.scored_runs import RunsPool, pools_of_runs
from harness.reports.gathering import Gathered


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Entries of one machine class and tuning effort, over two workloads or more.

    An entry is a submission, or one of its points. `shares[i][k]` is the share of `workloads` on
    which entry i took at most `taus[k]` times the fastest one's time; `scores` are AlgoPerf's,
    the area under it; `run_on` says on how many it was run. A workload that it was not run on
    counts as missed.
    """

    machine_class: str
    effort: str
    workloads: Sequence[str]
    entries: Sequence[str]
    submissions: Sequence[str]  # of the entries
    taus: Sequence[float]
    shares: Sequence[Sequence[float]]
    scores: Sequence[float]
    run_on: Sequence[int]


def performance_profiles(gathered: Gathered) -> list[Profile]:
    """Return a profile wherever there is one: over the selected workloads, among all submissions.

    Who is the fastest is judged among all that were measured, whoever is shown.
    """
    chosen = gathered.selection.workloads
    names = None if chosen is None else sorted(chosen)
    found = [
        _profile(of_runs, gathered.selection.submissions)
        for of_runs in pools_of_runs(gathered.home, names, gathered.clock, None)
    ]
    return [profile for profile in found if profile is not None]


def _profile(of_runs: RunsPool, chosen: frozenset[str] | None) -> Profile | None:
    pool = _comparable(of_runs.pool)
    if pool is None:
        return None
    to_fastest = ratios(median_times(pool), pool)
    shares, areas = profiles(to_fastest), scores(to_fastest)
    submissions = [of_runs.submission_of[entry] for entry in pool.submissions]
    shown = [n for n, name in enumerate(submissions) if chosen is None or name in chosen]
    shown.sort(key=lambda n: (-float(areas[n]), pool.submissions[n]))
    return Profile(
        machine_class=of_runs.machine_class,
        effort=of_runs.tuning_effort,
        workloads=[f"{name} v{of_runs.versions[name]}" for name in pool.workloads],
        entries=[pool.submissions[n] for n in shown],
        submissions=[submissions[n] for n in shown],
        taus=[float(tau) for tau in TAUS],
        shares=[[float(share) for share in shares[n]] for n in shown],
        scores=[float(areas[n]) for n in shown],
        run_on=[
            sum((pool.submissions[n], workload) in pool.study_times for workload in pool.workloads)
            for n in shown
        ],
    )


def _comparable(pool: Pool) -> Pool | None:
    """Return the part of a pool in which there is something to compare, None if there is none."""
    pairs = {pair for pair in pool.study_times if pair[1] in pool.workloads}
    submissions, workloads = _compared(pairs)
    if not submissions:
        return None
    variants = {name: base for name, base in pool.variants.items() if base in workloads}
    return Pool(
        submissions=submissions,
        workloads=workloads,
        study_times={
            pair: times
            for pair, times in pool.study_times.items()
            if pair[0] in submissions and pair[1] in {*workloads, *variants}
        },
        variants=variants,
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
