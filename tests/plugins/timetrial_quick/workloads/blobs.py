"""quick/blobs: four blobs in eight dimensions, reached within a hundred steps."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.workload import Workload

CLASSES, DIMENSIONS = 4, 8
# An evaluation touches the file named by the first variable and then sleeps the seconds in the
# second, so that a test finds the referee in the middle of it.
EVALUATING_FILE = "QUICK_EVALUATING_FILE"
EVALUATION_SLEEP_S = "QUICK_EVALUATION_SLEEP_S"


class Blobs(Workload):
    head_parameters: ClassVar[frozenset[str]] = frozenset({"2.weight", "2.bias"})

    def prepare(self) -> dict[str, dict[str, Tensor]]:
        import numpy as np

        # Sums of whole numbers are the same to the byte everywhere; `RandomState` is frozen.
        random = np.random.RandomState(0)
        centres = random.randint(-20, 21, size=(CLASSES, DIMENSIONS))
        splits = {}
        data = self.card.data
        sizes = {
            "training": data.training_examples,
            "evaluation": data.evaluation_examples,
            "test": data.test_examples,
        }
        for name, n in sizes.items():
            labels = random.randint(CLASSES, size=n)
            noise = random.randint(-6, 7, size=(n, DIMENSIONS, 6)).sum(axis=2)
            points = (centres[labels] + noise).astype(np.float32) / 16
            splits[name] = {
                "points": torch.from_numpy(points),
                "labels": torch.from_numpy(labels.astype(np.int64)),
            }
        return splits

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(DIMENSIONS, 16), nn.ReLU(), nn.Linear(16, CLASSES))

    def training_batch(
        self, data: Mapping[str, Tensor], indices: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        return data["points"][indices], data["labels"][indices]

    def synthetic_batch(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        labels = torch.randint(CLASSES, (batch_size,), generator=generator)
        return torch.randn(batch_size, DIMENSIONS, generator=generator), labels

    def per_example_loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        return F.cross_entropy(outputs, targets, reduction="none", label_smoothing=label_smoothing)

    def evaluate(self, model: nn.Module, data: Mapping[str, Tensor]) -> dict[str, float]:
        if file := os.environ.get(EVALUATING_FILE):
            Path(file).touch()
        time.sleep(float(os.environ.get(EVALUATION_SLEEP_S, "0")))
        logits = model(data["points"])
        correct = (logits.argmax(dim=1) == data["labels"]).double().mean().item()
        return {
            "accuracy": correct,
            "loss": F.cross_entropy(logits.double(), data["labels"]).item(),
        }
