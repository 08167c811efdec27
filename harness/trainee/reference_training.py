"""The reference recipe's loop and schedule; a submission's parts stand in their places."""

import math

import torch
from torch import nn

from harness.session import Session
from harness.spec import Recipe


def warmup_cosine(progress: float, warmup_fraction: float, final_fraction: float) -> float:
    """Return the learning-rate factor: linear warm-up, then a cosine to `final_fraction`.

    Args:
        progress: examples ÷ horizon in [0, 1], counting those of the step about to be taken.
        warmup_fraction: the part of the horizon that warms up.
        final_fraction: the factor at progress 1 and after.
    """
    if progress < warmup_fraction:
        return progress / warmup_fraction
    if warmup_fraction >= 1.0:
        return 1.0
    decayed = (progress - warmup_fraction) / (1.0 - warmup_fraction)
    return final_fraction + (1.0 - final_fraction) * 0.5 * (1.0 + math.cos(math.pi * decayed))


class LearningRateSchedule:
    """Multiplies each group's own learning rate by the schedule's factor."""

    def __init__(self, optimizer: torch.optim.Optimizer, recipe: Recipe) -> None:
        self._groups = optimizer.param_groups
        self._base = [group["lr"] for group in self._groups]
        self._warmup_fraction = recipe.warmup_fraction
        self._final_fraction = recipe.final_lr_fraction

    def apply(self, progress: float) -> None:
        """Set the learning rates for a step that ends at `progress`."""
        factor = warmup_cosine(progress, self._warmup_fraction, self._final_fraction)
        for group, base in zip(self._groups, self._base, strict=True):
            group["lr"] = base * factor


def train(
    session: Session, model: nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe
) -> None:
    """Train until the session ends it: forward, backward, clip, step."""
    schedule = LearningRateSchedule(optimizer, recipe)
    size = recipe.batch_size
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    while True:
        schedule.apply(session.progress(session.examples + size))
        inputs, targets = session.batch()
        loss = session.per_example_loss(model(inputs), targets).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        session.count(forward=size, backward=size)
        session.watch(loss)
        if recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, recipe.clip_norm, foreach=True)
        optimizer.step()
        session.maybe_evaluate(model, examples=size)
