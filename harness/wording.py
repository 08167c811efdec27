"""How figures and outcomes read to people: one place for every format."""

import datetime
import math
from collections.abc import Mapping
from typing import Any

from harness.cards import Metric

MISSING = "–"
MIB = 1 << 20
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


def plain(value: object) -> str:
    """Return a value for a table where nothing is known of its meaning."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime.datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value)
    return str(value)


def significant(value: float | None) -> str:
    """Return three significant digits, never fewer than the whole part, no exponent."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(decimals, 9)}f}"


def count(value: float | None) -> str:
    """Return a count with its thousands apart."""
    return MISSING if value is None else f"{value:,.0f}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, `1 run` or `2,000 runs`."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def mebibytes(value: float | None) -> str:
    """Return bytes in MiB."""
    return MISSING if value is None else f"{value / MIB:,.0f}"


def moment(value: datetime.datetime | None) -> str:
    """Return a moment to the minute, in local time."""
    return MISSING if value is None else value.astimezone().strftime("%Y-%m-%d %H:%M")


def point(hyperparameters: Mapping[str, object]) -> str:
    """Return a hyperparameter point in words."""
    return ", ".join(f"{name}={plain(value)}" for name, value in hyperparameters.items())


def seconds(value: float | None) -> str:
    """Return a duration for people: three figures, then minutes and hours."""
    if value is None:
        return MISSING
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
        return MISSING
    for step, unit in _BYTE_STEPS:
        if value >= step:
            return (
                f"{value / step:.3g} {unit}" if value < 100 * step else f"{value / step:.0f} {unit}"
            )
    return f"{value:.0f} B"


def metric_value(value: float | None) -> str:
    """Return a metric's value with four decimals, or four figures where it is small or large."""
    if value is None:
        return MISSING
    return f"{value:.4f}" if 0.01 <= abs(value) < 1000 else f"{value:.4g}"


def score(value: float | None) -> str:
    """Return a score between 0 and 1, with AlgoPerf's four decimals."""
    return MISSING if value is None else f"{value:.4f}"


def score_interval(low: float | None, high: float | None) -> str:
    """Return a score's interval, nothing where there is none."""
    return "" if low is None or high is None else f"{low:.3f}–{high:.3f}"


def target_words(metric: Metric) -> str:
    """Return the target with its direction, `accuracy ≥ 0.9650`."""
    if not metric.within_reach:
        return f"the end, for the curve of {metric.name}"
    sign = "≥" if metric.direction == "maximise" else "≤"
    return f"{metric.name} {sign} {metric_value(metric.target)}"


def claim_in_words(claim: Mapping[str, Any] | None) -> str:
    """Return a claim as its ratio: what it needs of what, compared with whom, on what."""
    if claim is None:
        return MISSING
    return (
        f"{claim['metric'].replace('_', ' ')} ≤ {claim['ratio']:g} × {claim['baseline']} "
        f"on {claim['workload']}"
    )
