"""The reference recipe: uniform shuffling, warm-up and cosine, and the loop around the parts."""

import math
from collections.abc import Iterator

import torch
from torch import nn

from harness.cards import Closure as ClosureKind
from harness.session import Averaging, Data, Factors, Schedule, Selection, Session, Training
from harness.session.ranks import Ranks
from harness.trainee.closure import Closure


class WarmupCosine(Schedule):
    """Linear warm-up, then a cosine down to a final fraction of the learning rate.

    Args:
        warmup_fraction: the part of the horizon that warms up.
        final_lr_fraction: the factor at progress 1 and after.
    """

    def __init__(self, warmup_fraction: float, final_lr_fraction: float) -> None:
        self._warmup = warmup_fraction
        self._final = final_lr_fraction

    def __call__(self, progress: float) -> Factors:
        return Factors(learning_rate=warmup_cosine(progress, self._warmup, self._final))


def warmup_cosine(progress: float, warmup_fraction: float, final_fraction: float) -> float:
    """Return the learning-rate factor of a step that ends at `progress` in [0, 1]."""
    if progress < warmup_fraction:
        return progress / warmup_fraction
    if warmup_fraction >= 1.0:
        return 1.0
    decayed = (progress - warmup_fraction) / (1.0 - warmup_fraction)
    return final_fraction + (1.0 - final_fraction) * 0.5 * (1.0 + math.cos(math.pi * decayed))


class UniformShuffling(Data):
    """Each epoch a permutation of the training ids; a last, smaller batch is dropped.

    A batch that is to be larger than an epoch is an epoch.
    """

    def __init__(self, session: Session, order: torch.Generator) -> None:
        self._session = session
        self._order = order

    def batches(self) -> Iterator[Selection]:
        while True:
            ids = self._session.training_ids
            shuffled = ids[torch.randperm(len(ids), generator=self._order)]
            shuffled = shuffled.to(self._session.device)
            position = 0
            # A holdout begins a new epoch, without the ids that it took.
            while self._session.training_ids is ids:
                size = min(self._session.batch_size, len(ids))
                if position + size > len(ids):
                    break
                yield Selection(ids=shuffled[position : position + size])
                position += size


class GroupScaling:
    """Applies a schedule's factors to an optimizer's parameter groups.

    The base values are those that the groups had when they were made; a key that a group does
    not have stays away.
    """

    _KEYS = ("lr", "weight_decay", "momentum", "beta1", "betas")

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._base = [{k: g[k] for k in self._KEYS if k in g} for g in optimizer.param_groups]

    def apply(self, factors: Factors) -> None:
        """Set every group for the next step."""
        for group, base in zip(self._optimizer.param_groups, self._base, strict=True):
            if "lr" in base:
                group["lr"] = base["lr"] * factors.learning_rate
            if "weight_decay" in base:
                group["weight_decay"] = base["weight_decay"] * factors.weight_decay
            for key in ("momentum", "beta1"):
                if key in base:
                    group[key] = base[key] * factors.momentum
            if "betas" in base:
                first, *rest = base["betas"]
                group["betas"] = (first * factors.momentum, *rest)


class RecipeTraining(Training):
    """One model's training by the recipe: schedule, batch, closure, optimizer."""

    def __init__(
        self,
        session: Session,
        model: nn.Module,
        *,
        optimizer: torch.optim.Optimizer,
        closure: ClosureKind,
        schedule: Schedule,
        clip_norm: float | None,
        batch_size: int,
        ranks: Ranks | None = None,
    ) -> None:
        self._session = session
        self._optimizer = optimizer
        self._schedule = schedule
        self._closure = Closure(session, model, closure, optimizer, clip_norm, ranks)
        self._takes_closure = closure != "none"
        self._scaling = GroupScaling(optimizer)
        self._batch_size = batch_size

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self._optimizer

    def step(self) -> None:
        session = self._session
        # The batch size may yet change with these very factors; the last step's stands for it.
        factors = self._schedule(session.progress(session.examples + session.batch_size))
        self._scaling.apply(factors)
        session.batch_size = max(1, round(self._batch_size * factors.batch_size))
        self._closure.next_batch()
        if self._takes_closure:
            self._optimizer.step(self._closure)  # type: ignore[arg-type]
        else:
            self._closure()
            self._optimizer.step()


def train(
    session: Session, model: nn.Module, training: Training, averaging: Averaging | None
) -> None:
    """Train until the session ends it."""
    while True:
        training.step()
        if averaging is not None:
            averaging.update()
        session.maybe_evaluate(model)
