"""EMA: evaluate an exponential moving average of the weights, train the weights themselves.

Bias-corrected as in Kingma and Ba 2015, "Adam: A Method for Stochastic Optimization", arXiv
1412.6980, section 7.2; studied as a method by Morales-Brotons et al. 2024, "Exponential Moving
Average of Weights in Deep Learning: Dynamics and Benefits", arXiv 2411.18704. With θ_t the weights
after step t, counted from 1:

    m_t = β m_{t-1} + (1 - β) θ_t,    m_0 = 0
    θ̂_t = m_t / (1 - βᵗ)              what is evaluated

The initial weights have no part in it: θ̂_1 = θ_1. It is kept in the equivalent form

    θ̂_t = θ̂_{t-1} + w_t (θ_t - θ̂_{t-1}),    w_t = (1 - β) / (1 - βᵗ)

one kernel over all tensors, whose rounding does not grow while βᵗ is near 1. Other codes start from
the initial weights and ramp β up instead, as min(β, (1 + t)/(10 + t)): another convention.

Papers use β from 0.999 to 0.9999 over 10⁵ steps and more. The default of 0.99 averages some 100
steps, for runs of about 1000. The average wants less learning rate decay than the last iterate.

Batch-norm statistics are not averaged: they are estimated anew for the averaged weights by
forward passes before every evaluation, on the clock, and put back afterwards bit for bit.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from harness.session import Averaging, Session


class EMA(Averaging):
    """Exponential moving average of the parameters.

    Args:
        session: recalibrates batch norm.
        model: what is trained.
        decay: β.
        recalibration_batches: forward passes that re-estimate batch-norm statistics.
        foreach: one kernel for all tensors, or one tensor at a time; both agree to rounding.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        *,
        session: Session,
        model: nn.Module,
        decay: float = 0.99,
        recalibration_batches: int = 4,
        foreach: bool = True,
    ) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"EMA: decay must be a number in [0, 1), not {decay!r}")
        if recalibration_batches < 1:
            raise ValueError(
                f"EMA: recalibration_batches must be at least 1, not {recalibration_batches!r}"
            )
        self._session = session
        self._model = model
        self._decay = decay
        self._batches = recalibration_batches
        self._foreach = foreach
        self._steps = 0
        self._weights: list[Tensor] = list(model.parameters())
        self._averages: list[Tensor] = []  # none before the first step

    @torch.no_grad()
    def update(self) -> None:
        self._steps += 1
        if self._steps == 1:
            self._averages = [p.detach().clone() for p in self._weights]
            return
        weight = (1 - self._decay) / (1 - self._decay**self._steps)
        if self._foreach:
            torch._foreach_lerp_(self._averages, self._weights, weight)
        else:
            for average, p in zip(self._averages, self._weights, strict=True):
                average.add_(weight * (p - average))

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """Evaluate the average; before the first step there is none, and nothing changes."""
        if self._steps == 0:
            yield
            return
        trained = list(self._model.parameters()) + list(self._model.buffers())
        kept = [tensor.detach().clone() for tensor in trained]
        try:
            with torch.no_grad():
                for p, average in zip(self._weights, self._averages, strict=True):
                    p.copy_(average)
            self._session.recalibrate(self._model, self._batches)
            yield
        finally:
            with torch.no_grad():
                for tensor, value in zip(trained, kept, strict=True):
                    tensor.copy_(value)
