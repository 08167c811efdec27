"""Measures the pace where the trainee would train, while no trainee trains."""

from collections.abc import Sequence

from harness.referee.borrowed_cores import borrowed
from harness.reference_step import ReferenceStep

AT_LEAST_STEPS = 20


def sample_pace(
    step: ReferenceStep, cores: Sequence[int], threads: int, at_least_s: float
) -> list[int]:
    """Return the nanoseconds of each reference step, timed on `cores` with `threads` threads."""
    with borrowed(cores, threads):
        return step.time(at_least_s=at_least_s, at_least_steps=AT_LEAST_STEPS)
