"""One hyperparameter over decades, as a sweep: its values, and what their runs say."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.cards import WorkloadCard
from harness.errors import UsageError, one_of
from harness.judging.sensitivity import Rate
from harness.judging.tuning import Trial
from harness.recipe import resolve
from harness.sweeps.jobs import Job, Slot, jobs_of
from harness.sweeps.sweep_file import Entrant, SweepFile
from harness.sweeps.tuning import attempts_of

DEFAULT_DECADES = 3.0  # three orders of magnitude
MAX_POINTS = 200
_ROUNDING = 1e-9  # of a point's number: 0.1 is a whole power of ten


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """A submission's values of the hyperparameter, each with its factor of the present one."""

    submission: str
    hyperparameter: str  # as `--set` addresses it
    present: float
    settings: tuple[str, ...]  # `--set`s of everything else
    values: tuple[tuple[float, str], ...]  # factor, text of the value

    def entrants(self) -> list[Entrant]:
        """Return the submission at each value."""
        others = dict(_key_and_value(setting) for setting in self.settings)
        return [
            Entrant(submission=self.submission, set={**others, self.hyperparameter: text})
            for _, text in self.values
        ]


def factors(low: float, high: float, points_per_decade: int) -> list[float]:
    """Return the factors to try: the powers of 10^(1/points) from `low` to `high`.

    Always the same ones, so that a wider range goes on with the runs of a narrower one.

    Raises:
        UsageError: an empty range, or too few or too many points.
    """
    if not 0 < low < high < math.inf:
        raise UsageError(
            f"The factors go from --low, above 0, up to --high; {low:g} to {high:g} is no range. "
            "Example: --low 0.1 --high 10."
        )
    first = math.ceil(points_per_decade * math.log10(low) - _ROUNDING)
    last = math.floor(points_per_decade * math.log10(high) + _ROUNDING)
    number = last - first + 1
    if not 2 <= number <= MAX_POINTS:
        raise UsageError(
            f"From {low:g} to {high:g} with {points_per_decade} points a decade there are "
            f"{max(number, 0)} values; 2 to {MAX_POINTS} can be tried. Change --decades, --low and "
            "--high, or --points."
        )
    return [10 ** (step / points_per_decade) for step in range(first, last + 1)]


def axis(
    submission: str,
    workload: WorkloadCard,
    hyperparameter: str,
    settings: Sequence[str],
    tried: Sequence[float],
) -> Axis:
    """Return the values to try of a submission's hyperparameter on a workload.

    The present value is the tuned one, else the default, unless `settings` give another.

    Raises:
        UsageError: no such hyperparameter, or one that is no positive number.
    """
    point = resolve(submission, workload, settings).hyperparameters
    names = [name for name in point if name == hyperparameter]
    names = names or [name for name in point if name.endswith(f".{hyperparameter}")]
    if not names and not point:
        raise UsageError(
            f"{submission} has no card, which would say its {hyperparameter}. Say about which "
            f"value to vary it: --set {hyperparameter}=VALUE."
        )
    if not names:
        raise one_of(f"For {submission} the hyperparameter", hyperparameter, point)
    if len(names) > 1:
        raise UsageError(
            f"--hyperparameter {hyperparameter} could mean several parts of {submission}. "
            f"Say which: {', '.join(names)}."
        )
    name, present = names[0], point[names[0]]
    if isinstance(present, bool) or not isinstance(present, int | float) or not present > 0:
        raise UsageError(
            f"{name} of {submission} is {present} on {workload.name}; only a positive number has "
            f"multiples to try. Give one by --set {name}=VALUE, or name another hyperparameter."
        )
    bare = _last_part(name)
    alone = [_last_part(other) for other in point].count(bare) == 1

    def sets_it(setting: str) -> bool:
        key, _ = _key_and_value(setting)
        return key == name or (alone and _last_part(key) == bare)

    return Axis(
        submission=submission,
        hyperparameter=name,
        present=present,
        settings=tuple(setting for setting in settings if not sets_it(setting)),
        # The present value to the last digit: runs that were made at it count.
        values=tuple((f, repr(present) if f == 1 else f"{present * f:.6g}") for f in tried),
    )


def _last_part(name: str) -> str:
    return name.rpartition(".")[2]


def _key_and_value(setting: str) -> tuple[str, str]:
    key, _, value = setting.partition("=")
    return key.strip(), value.strip()


def sensitivity_jobs(
    axes: Sequence[Axis], workload: str, seeds: int, slot: Slot, home: Path
) -> list[Job]:
    """Return the runs: seed by seed, the submissions' values taking turns."""
    entrants = tuple(entrant for one in axes for entrant in one.entrants())
    return jobs_of(SweepFile(submissions=entrants, workloads=(workload,), seeds=seeds), slot, home)


def rates_of(axes: Sequence[Axis], jobs: Sequence[Job], home: Path) -> tuple[list[list[Rate]], int]:
    """Return what the runs say of each axis's values, and how many runs say nothing yet.

    A value counts once all its runs have ended by themselves; tainted ones count too, as in
    `harness.sweeps.tuning.trials_of`. Raises as `harness.records.index.query`.
    """
    attempts = attempts_of(jobs, home)
    by_point: dict[tuple[str, tuple[str, ...]], list[Job]] = {}
    for job in jobs:
        by_point.setdefault((job.request.submission, tuple(job.request.settings)), []).append(job)
    found: list[list[Rate]] = []
    missing = 0
    for one in axes:
        rates = []
        for number, (entrant, (factor, text)) in enumerate(
            zip(one.entrants(), one.values, strict=True)
        ):
            settings = tuple(f"{name}={value}" for name, value in entrant.set.items())
            own = by_point[entrant.submission, settings]
            made = [attempts[job.identity] for job in own if job.identity in attempts]
            missing += len(own) - len(made)
            if len(made) == len(own):
                trial = Trial(number=number, point={one.hyperparameter: text}, attempts=made)
                rates.append(Rate(value=float(text), factor=factor, trial=trial))
        found.append(rates)
    return found, missing
