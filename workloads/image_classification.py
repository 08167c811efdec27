"""What workloads that sort images into classes share: batches, cross-entropy and accuracy."""

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.workload import Workload

EVALUATION_BATCH = 256


class ImageClassification(Workload):
    """Splits hold `images` [N, *image_shape] and `labels` int64 [N]; models return logits."""

    classes: ClassVar[int]
    image_shape: ClassVar[tuple[int, ...]]
    head_parameters: ClassVar[frozenset[str]] = frozenset({"head.weight", "head.bias"})

    def training_batch(
        self,
        data: Mapping[str, Tensor],
        indices: Tensor,
        generator: torch.Generator,  # noqa: ARG002 - nothing is augmented unless a family does
    ) -> tuple[Tensor, Tensor]:
        """Return images float32 [B, *image_shape] and labels int64 [B]."""
        return data["images"].index_select(0, indices), data["labels"].index_select(0, indices)

    def synthetic_batch(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return uniform noise as images and uniform labels, on the generator's device."""
        device = generator.device
        images = torch.rand(batch_size, *self.image_shape, generator=generator, device=device)
        labels = torch.randint(self.classes, (batch_size,), generator=generator, device=device)
        return images, labels

    def per_example_loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """Return the cross-entropies in nats, shape [B]."""
        return F.cross_entropy(outputs, targets, reduction="none", label_smoothing=label_smoothing)

    def evaluate(self, model: nn.Module, data: Mapping[str, Tensor]) -> dict[str, float]:
        """Return `accuracy` (a fraction) and `loss` (mean cross-entropy in nats, unsmoothed)."""
        images = torch.split(data["images"], EVALUATION_BATCH)
        labels = torch.split(data["labels"], EVALUATION_BATCH)
        # The sums stay on the device, in float64: one synchronisation, no rounding that counts.
        sums = torch.zeros(2, dtype=torch.float64, device=data["labels"].device)
        for x, y in zip(images, labels, strict=True):
            logits = model(x).float()
            sums[0] += (logits.argmax(dim=1) == y).sum()
            sums[1] += F.cross_entropy(logits, y, reduction="sum")
        accuracy, loss = (sums / len(data["labels"])).tolist()
        return {"accuracy": accuracy, "loss": loss}
