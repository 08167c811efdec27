"""Which runs ask the same question: a sweep does not ask it twice."""

import functools
import hashlib
import importlib.metadata
import platform

import msgspec

from harness.cards import WorkloadCard
from harness.recipe import Resolved

_PACKAGES = ("timetrial", "torch", "numpy")


def identity(
    resolved: Resolved,
    card: WorkloadCard,
    seed: int,
    machine_class: str,
    *,
    budget_paces: float,
    nproc: int = 1,
) -> str:
    """Return a hash of all that decides what a run will find, but for chance.

    Source of the submission, version of the workload's card, point, seed, budget, machine class,
    number of processes and the versions of what computes. Not the path of a submission's file: a
    moved one is the same.
    """
    question = {
        "source": resolved.source_sha256,
        "hyperparameters": resolved.hyperparameters,
        "workload": [card.name, card.version],
        "seed": seed,
        "budget_paces": budget_paces,
        "machine_class": machine_class,
        "environment": environment(),
    }
    if nproc > 1:
        question["nproc"] = nproc
    encoded = msgspec.json.encode(question, order="deterministic")
    return hashlib.sha256(encoded).hexdigest()[:32]


@functools.cache
def environment() -> tuple[str, ...]:
    """Return the versions that a run's figures depend on."""
    versions = (f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    return (f"python {platform.python_version()}", *versions)
