"""An executor that trains nothing: it writes the runs' records, as a script of times says."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from records.synthetic_runs import SECOND, SyntheticRun

from harness import catalogue
from harness.home import runs_folder
from harness.sweeps.execution import Watcher
from harness.sweeps.jobs import Job
from harness.sweeps.worker import Began, Finished, Refused

BETWEEN_S = 8.0  # starting a trainee, a pace


@dataclasses.dataclass(kw_only=True)
class Made:
    """How a run goes; without `seconds` it misses."""

    seconds: float | None = 10.0
    outcome: str = "reached"
    taints: Sequence[str] = ()
    refused: str | None = None
    memory_bytes: int = 100 << 20


Script = Callable[[Job, int], Made]  # the job, and how many runs of its identity there were


class RecordedRuns:
    """Carries out jobs by writing their record, on a clock of its own."""

    places: Sequence[str] = ("",)

    def __init__(self, home: Path, script: Script) -> None:
        self.calls: list[list[tuple[str, int]]] = []
        self._home, self._script = home, script
        self._made: dict[str, int] = {}
        folder = runs_folder(home)
        self._number = len(list(folder.iterdir())) if folder.exists() else 0
        self.now_ns = (1_700_000_000 + 3600 * self._number) * SECOND  # later than all of those

    def run(self, jobs: Sequence[Job], watcher: Watcher, interrupted: Callable[[], bool]) -> None:
        self.calls.append([(job.submission, job.seed) for job in jobs])
        for job in jobs:
            if interrupted():
                return
            times = self._made.get(job.identity, 0)
            self._made[job.identity] = times + 1
            self._carry_out(job, self._script(job, times), watcher)

    def _carry_out(self, job: Job, made: Made, watcher: Watcher) -> None:
        if made.refused is not None:
            watcher.reported(0, job, Refused(reason=made.refused))
            return
        card = catalogue.workload(job.workload).card
        self._number += 1
        run_id = f"{self._number:04d}-{job.submission}-s{job.seed}"
        reached = made.seconds is not None and made.outcome == "reached"
        seconds = made.seconds or 20.0
        run = SyntheticRun(
            run_id=run_id,
            submission=job.submission,
            identity=job.identity,
            workload=card,
            seed=job.seed,
            values=(card.metric.target if reached else 0.0,),
            credited=0 if reached else None,
            interval_s=seconds,
            outcome=made.outcome if reached or made.outcome != "reached" else "budget",  # type: ignore[arg-type]
            reason="so the script says",
            taints=made.taints,
            peak_memory_bytes=made.memory_bytes,
            created_unix_ns=self.now_ns,
        )
        watcher.reported(0, job, Began(run_id=run_id))
        run.write(self._home)
        self.now_ns += round((seconds + BETWEEN_S) * SECOND)
        watcher.reported(
            0,
            job,
            Finished(
                run_id=run_id,
                outcome=run.outcome,
                reason=run.reason,
                tainted=bool(run.taints),
                time_to_target_s=made.seconds if reached else None,
                best_metric=None,
            ),
        )


class Silent:
    """A watcher that only remembers what was refused."""

    def __init__(self) -> None:
        self.refused: list[str] = []

    def reported(self, slot: int, job: Job, report: object) -> None:
        if isinstance(report, Refused):
            self.refused.append(report.reason)


def times(by_submission: Mapping[str, Sequence[float | None]]) -> Script:
    """Return the script in which each submission's seeds take the times given, in turn."""

    def script(job: Job, _: int) -> Made:
        own = by_submission[job.submission]
        return Made(seconds=own[job.seed % len(own)])

    return script
