"""Batch-norm statistics: kept as they are during a probe, or estimated anew."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def has_batch_norm(model: nn.Module) -> bool:
    """Return whether a model normalises by the batch."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def _batch_norms(model: nn.Module) -> list[_BatchNorm]:
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]


@contextmanager
def frozen_batch_norm(model: nn.Module) -> Iterator[None]:
    """Normalise by the batch, as in training, and leave the running statistics alone."""
    norms = _batch_norms(model)
    for module in norms:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in norms:
            module.track_running_stats = True


@contextmanager
def recalibrated(model: nn.Module) -> Iterator[bool]:
    """Reset the running statistics and average them over the block's forward passes.

    Yields whether there is anything to average. The plain mean (`momentum` None) weighs every
    batch alike, as Izmailov et al. 2018 (1803.05407) do for averaged weights.
    """
    norms = _batch_norms(model)
    before = [(module.momentum, module.training) for module in norms]
    for module in norms:
        module.reset_running_stats()
        module.momentum = None
        module.training = True  # a frozen one would keep the reset statistics
    try:
        yield bool(norms)
    finally:
        for module, (momentum, training) in zip(norms, before, strict=True):
            module.momentum = momentum
            module.training = training
