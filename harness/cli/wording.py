"""How figures and outcomes read to people: one place for every format."""

from collections.abc import Mapping
from typing import Any

from harness.cards import Metric
from harness.records.record import RunRecord

_BYTE_STEPS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))

OUTCOME_WORDS = {
    "reached": "reached the target",
    "budget": "did not reach the target in its budget",
    "diverged": "diverged",
    "out_of_memory": "ran out of memory",
    "crashed": "crashed",
    "timeout": "hung",
    "interrupted": "was interrupted",
    "stopped": "was stopped",
    "skipped": "was skipped",
    "disqualified": "was disqualified",
}


def seconds(value: float | None) -> str:
    """Return a duration for people: three figures, then minutes and hours."""
    if value is None:
        return "–"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 100:
        return f"{value:.3g} s" if value < 10 else f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def size(value: float | None) -> str:
    """Return bytes with a binary unit."""
    if value is None:
        return "–"
    for step, unit in _BYTE_STEPS:
        if value >= step:
            return (
                f"{value / step:.3g} {unit}" if value < 100 * step else f"{value / step:.0f} {unit}"
            )
    return f"{value:.0f} B"


def metric_value(value: float | None) -> str:
    """Return a metric's value with four decimals, or four figures where it is small or large."""
    if value is None:
        return "–"
    return f"{value:.4f}" if 0.01 <= abs(value) < 1000 else f"{value:.4g}"


def target_words(metric: Metric) -> str:
    """Return the target with its direction, `accuracy ≥ 0.9650`."""
    if not metric.within_reach:
        return f"the end, for the curve of {metric.name}"
    sign = "≥" if metric.direction == "maximise" else "≤"
    return f"{metric.name} {sign} {metric_value(metric.target)}"


def counted_time(record: RunRecord, clock: str) -> float | None:
    """Return the time to target on the chosen clock."""
    return record.time_without_compile_s if clock == "warm" else record.time_to_target_s


def claim_in_words(claim: Mapping[str, Any] | None) -> str:
    """Return a claim as its ratio: what it needs of what, compared with whom, on what."""
    if claim is None:
        return "–"
    return (
        f"{claim['metric'].replace('_', ' ')} ≤ {claim['ratio']:g} × {claim['baseline']} "
        f"on {claim['workload']}"
    )
