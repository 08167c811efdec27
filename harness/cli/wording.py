"""How figures and outcomes read to people, and which of a run's times counts."""

from collections.abc import Mapping
from typing import Any

from harness.records.record import RunRecord
from harness.wording import OUTCOME_WORDS, metric_value, seconds, size, target_words

__all__ = [
    "OUTCOME_WORDS",
    "claim_in_words",
    "counted_time",
    "metric_value",
    "seconds",
    "size",
    "target_words",
]


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
