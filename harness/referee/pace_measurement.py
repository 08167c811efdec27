"""Measures the pace where the trainee would train, while no trainee trains."""

import os
from collections.abc import Sequence

import torch

from harness.cores import pin
from harness.reference_step import ReferenceStep

AT_LEAST_STEPS = 20


def sample_pace(
    step: ReferenceStep, cores: Sequence[int], threads: int, at_least_s: float
) -> list[int]:
    """Return the nanoseconds of each reference step, timed on `cores` with `threads` threads.

    The calling thread moves to those cores and back.
    """
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    threads_before = torch.get_num_threads()
    pin(cores)
    torch.set_num_threads(threads)
    try:
        return step.time(at_least_s=at_least_s, at_least_steps=AT_LEAST_STEPS)
    finally:
        torch.set_num_threads(threads_before)
        pin(sorted(before))
