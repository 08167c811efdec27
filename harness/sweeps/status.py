"""What became of a sweep's runs so far: read from the index, so that any sweep can go on."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness import catalogue
from harness.sweeps.jobs import Job

FINISHED = frozenset({"reached", "budget", "diverged", "stopped", "skipped"})
FAILED = frozenset({"crashed", "out_of_memory", "timeout", "disqualified"})
START_S = 6.0  # starting the trainee and measuring the pace again

State = Literal["done", "failed", "queued"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PastRun:
    """A run that answered one of the sweep's questions, or failed to."""

    run_id: str
    outcome: str
    reason: str
    tainted: bool
    time_to_target_s: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """What to run again though it ended."""

    failed: bool = False
    tainted: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """A sweep's runs: what there is of each, and how long those to come should take."""

    jobs: Sequence[Job]
    past: Mapping[str, PastRun]  # by identity: the run that counts
    seconds: Mapping[str, float]  # by identity: the estimate
    retry: Retry

    def state(self, job: Job) -> State:
        """Return whether the job has its run."""
        past = self.past.get(job.identity)
        if past is None:
            return "queued"
        if past.outcome in FAILED:
            return "queued" if self.retry.failed else "failed"
        return "queued" if past.tainted and self.retry.tainted else "done"

    @property
    def queued(self) -> list[Job]:
        """The jobs that have to run."""
        return [job for job in self.jobs if self.state(job) == "queued"]

    @property
    def seconds_left(self) -> float:
        """The estimate for all that has to run, one after the other."""
        return sum(self.seconds[job.identity] for job in self.queued)


def standing(home: Path, jobs: Sequence[Job], retry: Retry) -> Standing:
    """Return what the index under `home` knows of the jobs.

    Raises as `harness.records.index.query`.
    """
    from harness.records import index

    rows = index.query(home, _RUNS_SQL).to_dicts()
    wanted = {job.identity for job in jobs}
    past: dict[str, PastRun] = {}
    for row in rows:  # the oldest first
        known = past.get(row["identity"])
        if row["identity"] not in wanted or row["outcome"] not in FINISHED | FAILED:
            continue
        run = PastRun(
            run_id=row["run_id"],
            outcome=row["outcome"],
            reason=row["reason"],
            tainted=row["tainted"],
            time_to_target_s=row["time_to_target_s"],
        )
        if known is None or _worth(run) > _worth(known):
            past[row["identity"]] = run
    return Standing(jobs=jobs, past=past, seconds=_estimates(jobs, rows), retry=retry)


def _worth(run: PastRun) -> tuple[bool, bool]:
    return run.outcome in FINISHED, not run.tainted


_RUNS_SQL = """
    SELECT run_id, identity, submission, workload, workload_version, machine_class, tuning_effort,
           outcome, reason, len(tainted) > 0 AS tainted, time_to_target_s,
           submission_time_s + evaluation_s + export_s AS took_s
    FROM runs ORDER BY created_at, run_id
"""


def _estimates(jobs: Iterable[Job], rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return seconds by identity: of the submission's runs, the reference's, or the card's."""
    own: dict[tuple[object, ...], list[float]] = {}
    reference: dict[tuple[object, ...], list[float]] = {}
    for row in rows:
        if row["outcome"] not in FINISHED:
            continue
        place = (row["workload"], row["machine_class"])
        own.setdefault((*place, row["submission"]), []).append(row["took_s"])
        if row["tuning_effort"] == "reference":
            reference.setdefault(place, []).append(row["took_s"])
    medians = {place: statistics.median(took) for place, took in {**own, **reference}.items()}
    found = {}
    for job in jobs:
        place = (job.workload, job.machine_class)
        took = medians.get((*place, job.submission), medians.get(place))
        if took is None:
            card = catalogue.workload(job.workload).card
            share = card.noise.evaluation_share or 0.0
            took = card.reference_seconds / (1 - min(share, 0.9))
        found[job.identity] = took + START_S
    return found
