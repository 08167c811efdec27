"""What rows are ranked by: of every run a figure, of a row its median, the less the better.

A run that missed needed more than any figure of a run that reached: it counts as beyond. So
medians are the lower ones, as Kaplan and Meier's is.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.spec import TIME_FIELDS, ClockKind

Run = Mapping[str, Any]

# A run with one of these ends says nothing of how long the submission takes.
NO_EVIDENCE = frozenset({"interrupted", "stopped", "skipped"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """One thing to have little of."""

    field: str  # of a leaderboard's row: the median
    words: str  # "ranked by ..."
    unit: str
    column: str | None = None  # of a run, where it is read as it stands
    to_target: bool = True  # what a run that missed has of it is beyond


AXES = {
    "time": Axis(field="time_s", words="time to target", unit="s"),
    "normalised": Axis(field="normalised_time", words="normalised time", unit="paces"),
    "steps": Axis(field="steps_to_target", words="steps", unit="steps", column="steps_to_target"),
    "examples": Axis(
        field="examples_to_target", words="examples", unit="examples", column="examples_to_target"
    ),
    "passes": Axis(
        field="model_passes_to_target",
        words="model passes",
        unit="model passes",
        column="model_passes_to_target",
    ),
    "memory": Axis(field="memory_bytes", words="peak memory", unit="bytes", to_target=False),
    "energy": Axis(field="energy_j", words="energy", unit="J", column="energy_j"),
}


def counted(runs: Iterable[Run]) -> list[Run]:
    """Return the runs that say something of how long the submission takes."""
    return [run for run in runs if not run["tainted"] and run["outcome"] not in NO_EVIDENCE]


def time_s(run: Run, clock: ClockKind) -> tuple[float, bool]:
    """Return the time to target and True, or the time when the run was censored and False."""
    if run["outcome"] == "reached":
        return run[TIME_FIELDS[clock]], True
    # Whatever ended the run, it will never reach the target within its budget; on the warm
    # clock the budget ends sooner, by what the run spent on compilation.
    return run["budget_s"] - (run["compile_s"] or 0.0 if clock == "warm" else 0.0), False


def figures(axis: Axis, runs: Sequence[Run], clock: ClockKind) -> list[float]:
    """Return the figures of those runs that were measured, in ascending order."""
    if axis.column is not None:
        name = axis.column
        found = [run[name] if run["outcome"] == "reached" else math.inf for run in runs]
    elif axis.to_target:
        paces = axis.field == "normalised_time"
        times = [time_s(run, clock) for run in runs]
        found = [
            (time / run["pace_s"] if paces else time) if reached else math.inf
            for run, (time, reached) in zip(runs, times, strict=True)
        ]
    else:
        found = [_memory_bytes(run) for run in runs]
    return sorted([figure for figure in found if figure is not None])


def lower_median(ordered: Sequence[float]) -> float | None:
    """Return the lower median of an ascending sequence, None where it is empty or beyond."""
    if not ordered:
        return None
    middle = ordered[(len(ordered) - 1) // 2]
    return None if math.isinf(middle) else middle


def _memory_bytes(run: Run) -> float | None:
    gpu: float | None = run["gpu_peak_memory_bytes"]
    return run["peak_memory_bytes"] if gpu is None else gpu
