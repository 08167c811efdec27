"""The contract a workload implements: data, model, loss and metric of one card."""

import abc
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from harness.cards import ModelSettings, WorkloadCard, read_model_settings
from harness.data_files import verified_path

S = TypeVar("S", bound=ModelSettings)


class Workload(abc.ABC):
    """One workload in code; every figure (target, grid, batch size …) stands on its card.

    The trainee holds an instance with the training split only, the referee one with the
    evaluation and test splits only. Tensors arrive on the run's device.
    """

    # Parameters of the last layer, by the names that `named_parameters` gives them.
    head_parameters: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, card: WorkloadCard) -> None:
        self.card = card

    def settings(self, kind: type[S]) -> S:
        """Return the card's `model:` as the family's own struct of choices.

        Raises:
            UsageError: the card makes a choice that the family does not offer.
        """
        return read_model_settings(self.card, kind)

    @abc.abstractmethod
    def prepare(self) -> dict[str, dict[str, Tensor]]:
        """Return `{"training": …, "evaluation": …, "test": …}`: named CPU tensors a split.

        Deterministic to the byte on one version of the card: the harness hashes, caches
        and compares the result with the card. In the training split every tensor has the
        examples along dimension 0; an example's id is its index there.
        """

    @abc.abstractmethod
    def build_model(self) -> nn.Module:
        """Return the model in training mode; initialised from torch's global generator."""

    @abc.abstractmethod
    def training_batch(
        self, data: Mapping[str, Tensor], indices: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return `(inputs, targets)` for the examples `indices` (shape [B], int64).

        Random augmentation draws from `generator`, which lives on the data's device.
        """

    @abc.abstractmethod
    def synthetic_batch(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return a batch of the shapes and dtypes of a real one, holding no real data."""

    @abc.abstractmethod
    def per_example_loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """Return the training losses, shape [B]."""

    @abc.abstractmethod
    def evaluate(self, model: nn.Module, data: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the metrics of `model` on one held-back split; the card names the one that counts.

        Called by the referee under `torch.inference_mode` with the model in eval mode.
        """


class FileWorkload(Workload):
    """A workload prepared from official files, which the user has or asks to be downloaded."""

    def path(self, name: str) -> Path:
        """Return where the card's file `name` lies, its hash checked; nothing is downloaded.

        Raises:
            UsageError: it is missing, unreadable or damaged; says what to do about it.
            ValueError: the card names no such file.
        """
        return verified_path(self.card, name)


class PretrainedWorkload(Workload):
    """A workload whose every run starts from the same trained weights."""

    @abc.abstractmethod
    def pretrain(self) -> dict[str, Tensor]:
        """Return the weights to start from: every parameter and buffer by name, on CPU.

        Deterministic on one machine class (seeded, one thread). Made once, off the clock, and
        cached; rounding may differ between machine classes, whose results never mix.
        """


def load_workload(module: str, card: WorkloadCard) -> Workload:
    """Import `module` and return its implementation of `card`."""
    implementation = vars(importlib.import_module(module))[card.implementation.partition(":")[2]]
    workload = implementation(card)
    assert isinstance(workload, Workload)
    return workload


def canonical_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return every parameter and buffer by name; shared ones stand once, by their first name."""
    return dict(model.named_parameters()) | dict(model.named_buffers())
