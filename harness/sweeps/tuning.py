"""Tuning as a sweep: the points that it tries, and what their runs say of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness import catalogue
from harness.cards import FROM_RECIPE, SubmissionCard, WorkloadCard
from harness.judging.tuning import Attempt, Trial
from harness.recipe import resolve
from harness.sweeps.jobs import Job, Slot, jobs_of
from harness.sweeps.points import draw_points, search_space
from harness.sweeps.status import FINISHED
from harness.sweeps.sweep_file import Entrant, SweepFile

RULESET = "external"


def points_to_try(
    card: SubmissionCard, workload: WorkloadCard | None, count: int, seed: int
) -> list[dict[str, str]]:
    """Return the point at which the submission would run now, and `count - 1` drawn ones.

    Without a workload, for all alike: the defaults first.

    Raises:
        UsageError: the card has no search ranges.
    """
    where = "all workloads" if workload is None else workload.name
    drawn = draw_points(card, max(1, count), (seed, card.name, where))
    now = {
        name: known.default
        for name, known in search_space(card).items()
        if workload is not None or known.default != FROM_RECIPE  # left alone, it is the recipe's
    }
    if workload is not None:
        resolved = resolve(card.name, workload, ())
        # Beside the reference recipe's optimizer the names carry the submission's.
        values = resolved.hyperparameters
        now = {name: f"{values.get(f'{card.name}.{name}', values.get(name))}" for name in now}
    return [now, *drawn[: count - 1]]


def tuning_jobs(
    submission: str,
    points: Mapping[str, Sequence[dict[str, str]]],
    seeds: int,
    slot: Slot,
    home: Path,
    nproc: int = 1,
) -> list[Job]:
    """Return the runs that try each workload's points, `seeds` times each."""
    return [
        job
        for workload, tried in points.items()
        for job in jobs_of(
            SweepFile(
                submissions=(Entrant(submission=submission, points=tuple(tried)),),
                workloads=(workload,),
                ruleset=RULESET,
                trials=len(tried),
                studies=seeds,
                nproc=nproc,
            ),
            slot,
            home,
        )
    ]


def trials_of(
    jobs: Sequence[Job], points: Sequence[dict[str, str]], home: Path
) -> tuple[list[Trial], int]:
    """Return what the runs say of each point, and how many runs say nothing yet.

    A trial counts once all its runs have ended by themselves; tainted ones count too, since
    every time is a share of the same budget.

    Raises as `harness.records.index.query`.
    """
    attempts = attempts_of(jobs, home)
    trials, missing = [], 0
    for number, point in enumerate(points):
        own = [job for job in jobs if job.request.trial == number]
        found = [attempts[job.identity] for job in own if job.identity in attempts]
        missing += len(own) - len(found)
        if len(found) == len(own):
            trials.append(Trial(number=number, point=point, attempts=found))
    return trials, missing


def attempts_of(jobs: Sequence[Job], home: Path) -> dict[str, Attempt]:
    """Return by identity what the jobs' runs came to, of those that ended by themselves.

    Raises as `harness.records.index.query`.
    """
    from harness.records import index

    wanted = {job.identity for job in jobs}
    return {
        row["identity"]: _attempt(row)
        for row in index.query(home, _SQL).to_dicts()
        if row["identity"] in wanted and row["outcome"] in FINISHED
    }


_SQL = """
    SELECT identity, workload, outcome, time_to_target_s, budget_s, best_metric
    FROM runs ORDER BY created_at
"""


def _attempt(row: Mapping[str, object]) -> Attempt:
    card = catalogue.workload(str(row["workload"])).card
    reached = row["outcome"] == "reached"
    budget = float(row["budget_s"])  # type: ignore[arg-type]
    return Attempt(
        workload=card.name,
        seconds=float(row["time_to_target_s"]) if reached else budget,  # type: ignore[arg-type]
        budget_s=budget,
        reached=reached,
        best_value=row["best_metric"],  # type: ignore[arg-type]
        better_is_more=card.metric.direction == "maximise",
    )
