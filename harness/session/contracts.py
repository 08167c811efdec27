"""The contracts: what a class must offer to stand in a place of the recipe.

Every class is built with its card's hyperparameters as keyword arguments, and with what the
card's `needs` names: `session`, `model`, `optimizer`. An optimizer gets the parameter groups
first.
"""

import abc
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from harness.session.session import Session


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Example ids [B] int64, and weights [B] where the loss is a weighted mean."""

    ids: Tensor
    weights: Tensor | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class WholeBatch:
    """What several processes divide among them, each taking `own`."""

    ids: Tensor  # [G] int64
    weights: Tensor | None  # [G]
    own: slice


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Examples to train on, on the run's device; where several processes train, its part of them.

    So a batch of G examples is one of B = G ÷ processes in each.
    """

    ids: Tensor  # [B] int64
    inputs: Tensor
    targets: Tensor
    weights: Tensor | None  # [B]
    whole: WholeBatch | None = None  # None: these are all

    @property
    def size(self) -> int:
        """The number of examples."""
        return self.ids.shape[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Factors:
    """What a schedule multiplies for the next step; the base values are the recipe's.

    In each parameter group, of the keys that it has: `learning_rate` scales `lr`,
    `weight_decay` scales `weight_decay`, `momentum` scales `momentum`, `beta1` and the first of
    `betas`. `batch_size` scales the recipe's batch size, rounded.
    """

    learning_rate: float = 1.0
    weight_decay: float = 1.0
    momentum: float = 1.0
    batch_size: float = 1.0


class Schedule(abc.ABC):
    """Place `schedule`. For elapsed time, or the last batch, need `session`."""

    @abc.abstractmethod
    def __call__(self, progress: float) -> Factors:
        """Return the factors of the step that ends at `progress` = examples ÷ horizon, ≤ 1."""


class Data(abc.ABC):
    """Place `data`: which examples are trained on, in which order, with which weights."""

    @abc.abstractmethod
    def batches(self) -> Iterator[Selection]:
        """Yield selections without end; each of `session.batch_size` ids unless it means less.

        Runs between steps, on the clock. Ids that a holdout took are not to be yielded:
        draw from `session.training_ids`.
        """


class SetsHorizon(abc.ABC):
    """A data policy that changes over how many examples the schedule runs."""

    @abc.abstractmethod
    def horizon_examples(self, recipe_horizon: int) -> int:
        """Return the horizon, given the recipe's."""


class LossObserver(abc.ABC):
    """A data policy that is told the losses of what it chose."""

    @abc.abstractmethod
    def observe(self, ids: Tensor, losses: Tensor) -> None:
        """Take the per-example training losses [B] (detached) of the examples `ids` [B]."""


class LossWeigher(abc.ABC):
    """A data policy whose weights depend on the losses of the very batch."""

    @abc.abstractmethod
    def weigh(self, ids: Tensor, losses: Tensor) -> Tensor:
        """Return weights [B] ≥ 0 for losses [B] (detached): the loss is Σwl ÷ Σw."""


class Objective(abc.ABC):
    """Place `objective`: the training loss."""

    @abc.abstractmethod
    def __call__(self, outputs: Tensor, targets: Tensor, ids: Tensor) -> Tensor:
        """Return per-example losses [B].

        Args:
            outputs: logits [B, C], or [B, T, C] for sequences.
            targets: classes [B], or [B, T] with -100 where nothing counts.
            ids: the examples [B].
        """


class Parameterization(abc.ABC):
    """Place `parameterization`: trains other parameters than the model's own."""

    @abc.abstractmethod
    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the module to train, which may be `model` with parts replaced."""

    @abc.abstractmethod
    def canonical_weights(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the weights of the workload's own model: its names, shapes and dtypes."""


class Averaging(abc.ABC):
    """Place `averaging`: evaluates other weights than those that train."""

    @abc.abstractmethod
    def update(self) -> None:
        """Take in the weights after a step."""

    @abc.abstractmethod
    def evaluated(self) -> AbstractContextManager[None]:
        """Put the weights and buffers to evaluate into the model; restore them at the end.

        Batch-norm statistics must fit the weights: `session.recalibrate(model, batches)`.
        """


class Procedure(abc.ABC):
    """Place `procedure`: owns the loop."""

    @abc.abstractmethod
    def train(self, session: "Session", model: nn.Module) -> None:
        """Train `model` until the session ends it at a `session.maybe_evaluate(model)`."""


class Training(abc.ABC):
    """What `session.training(model)` returns: the recipe around a model of a procedure's own."""

    @property
    @abc.abstractmethod
    def optimizer(self) -> torch.optim.Optimizer:
        """The recipe's optimizer over the model's parameters."""

    @abc.abstractmethod
    def step(self) -> None:
        """Take one step: schedule, batch, loss, backward, clipping, optimizer. No evaluation."""
