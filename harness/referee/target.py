"""Whether and when a run reached its target: a pure fold over its evaluations."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.cards import Metric
from harness.events import Evaluation


@dataclass(frozen=True, kw_only=True, slots=True)
class Crossings:
    """Where the target was met. Indices into the evaluations; None: nowhere.

    `credited` is the first evaluation within the budget that met the target and whose next
    evaluation met it too; `pending` waits for that next one.
    """

    first: int | None
    credited: int | None
    pending: bool
    interpolated_ns: int | None


def find_crossings(evaluations: Sequence[Evaluation], metric: Metric, budget_ns: int) -> Crossings:
    """Return the crossings of a run so far; only the credited one ever ranks."""
    first = next((e.index for e in evaluations if e.meets), None)
    in_time = [e.meets and e.elapsed_ns <= budget_ns for e in evaluations]
    credited = next(
        (i for i in range(len(evaluations) - 1) if in_time[i] and evaluations[i + 1].meets),
        None,
    )
    return Crossings(
        first=first,
        credited=credited,
        pending=credited is None and bool(in_time) and in_time[-1],
        interpolated_ns=None if first is None else _interpolate(evaluations, first, metric.target),
    )


def _interpolate(evaluations: Sequence[Evaluation], first: int, target: float) -> int | None:
    """Return the time at which a straight line to the first crossing meets the target."""
    if first == 0:
        return None
    before, after = evaluations[first - 1], evaluations[first]
    if before.value is None or after.value is None or after.value == before.value:
        return None
    part = (target - before.value) / (after.value - before.value)
    return before.elapsed_ns + round(part * (after.elapsed_ns - before.elapsed_ns))
