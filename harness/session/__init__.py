"""All that a submission sees of the harness: the session, and the contracts of the places.

An optimizer's contract is torch's own (`torch.optim.Optimizer`); the others are the abstract
classes here. A submission imports from this package and from nothing else of `harness`.
"""

from harness.session.batch_norm import frozen_batch_norm
from harness.session.contracts import (
    Averaging,
    Batch,
    Data,
    Factors,
    LossObserver,
    LossWeigher,
    Objective,
    Parameterization,
    Procedure,
    Schedule,
    Selection,
    SetsHorizon,
    Training,
)
from harness.session.session import Session

__all__ = [
    "Averaging",
    "Batch",
    "Data",
    "Factors",
    "LossObserver",
    "LossWeigher",
    "Objective",
    "Parameterization",
    "Procedure",
    "Schedule",
    "Selection",
    "Session",
    "SetsHorizon",
    "Training",
    "frozen_batch_norm",
]
