"""mlp/digits: a perceptron with one hidden layer on digits as 64 numbers without geometry.

Every example is a fixed distortion of one of scikit-learn's handwritten digits, so that an id
always means the same inputs and a stage-wise method may keep what it computed for them.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.workload import Workload
from workloads.digit_images import (
    CLASSES,
    PIXELS,
    accuracy_and_loss,
    base_images,
    distort,
    random_distortions,
    split_ids,
)

FEATURES = PIXELS * PIXELS
HIDDEN = 1024
SPLIT_SEED = 1797
COPIES = {"training": 8, "evaluation": 13, "test": 13}  # fixed distortions of each base image
MATRIX_RANGE = 12  # ± 0.19: rotation, shear and scale together
SHIFT_RANGE = 12  # ± 0.75 pixels


class Perceptron(nn.Module):
    """Inputs [B, 64] → tanh of 1,024 units → logits [B, 10].

    An additive model in its hidden units: gradient boosting can build it a group of units at a
    time (Emami & Martínez-Muñoz 2023, "Sequential Training of Neural Networks With Gradient
    Boosting", IEEE Access 11).
    """

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(FEATURES, HIDDEN)
        self.head = nn.Linear(HIDDEN, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.tanh(self.hidden(inputs)))
        return logits


class MLPDigits(Workload):
    """No augmentation: the 7,976 training examples are the same in every epoch and every run."""

    head_parameters: ClassVar[frozenset[str]] = frozenset({"head.weight", "head.bias"})

    def prepare(self) -> dict[str, dict[str, Tensor]]:
        """Return the splits: `images` float32 [N, 64] in 0 … 1, `labels` int64 [N].

        The copies of one base image stand together, and all in one split.
        """
        import numpy as np

        images, labels = base_images()
        random = np.random.RandomState(SPLIT_SEED)
        splits = {}
        for name, base_ids in split_ids(labels, random).items():
            ids = base_ids.repeat_interleave(COPIES[name])
            distortions = random_distortions(random, len(ids), MATRIX_RANGE, SHIFT_RANGE)
            distorted = distort(images[ids], *distortions).flatten(1)
            splits[name] = {"images": distorted, "labels": labels[ids]}
        return splits

    def build_model(self) -> nn.Module:
        return Perceptron()

    def training_batch(
        self,
        data: Mapping[str, Tensor],
        indices: Tensor,
        generator: torch.Generator,  # noqa: ARG002 - the distortions are part of the data
    ) -> tuple[Tensor, Tensor]:
        """Return inputs float32 [B, 64] and labels int64 [B]."""
        return data["images"][indices], data["labels"][indices]

    def synthetic_batch(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return uniform noise as inputs and uniform labels, on the generator's device."""
        device = generator.device
        inputs = torch.rand(batch_size, FEATURES, generator=generator, device=device)
        labels = torch.randint(CLASSES, (batch_size,), generator=generator, device=device)
        return inputs, labels

    def per_example_loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """Return the cross-entropies in nats, shape [B]."""
        return F.cross_entropy(outputs, targets, reduction="none", label_smoothing=label_smoothing)

    def evaluate(self, model: nn.Module, data: Mapping[str, Tensor]) -> dict[str, float]:
        """Return `accuracy` (a fraction) and `loss` (mean cross-entropy in nats, unsmoothed)."""
        return accuracy_and_loss(model, data)
