"""What workloads of two classes share: batches, cross-entropy and the area under the ROC curve."""

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.workload import FileWorkload

CLASSES = 2
EVALUATION_BATCH = 256


def area_under_roc(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the share of pairs (a 1, a 0) in which the 1 has the higher score; a tie is half.

    Scores [N], labels 0 or 1 [N]; float64, on the scores' device.
    """
    ordered = scores.sort().values
    below = torch.searchsorted(ordered, scores)
    not_above = torch.searchsorted(ordered, scores, right=True)
    ranks = (below + not_above).double() / 2  # from 0, ties share theirs
    ones = labels.sum().double()
    zeros = len(labels) - ones
    # Those below a 1, ones and zeros; less the ones below a 1: each other, and half of itself.
    return ((ranks * labels).sum() - ones * ones / 2) / (ones * zeros)


class BinaryClassification(FileWorkload):
    """Splits hold `inputs`, by a name of the family's own, and `labels` int64 [N], 0 or 1."""

    inputs: ClassVar[str]

    def training_batch(
        self,
        data: Mapping[str, Tensor],
        indices: Tensor,
        generator: torch.Generator,  # noqa: ARG002 - nothing is augmented
    ) -> tuple[Tensor, Tensor]:
        """Return inputs [B, …] and labels int64 [B]."""
        return data[self.inputs].index_select(0, indices), data["labels"].index_select(0, indices)

    def per_example_loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """Return the cross-entropies in nats, shape [B]."""
        return F.cross_entropy(outputs, targets, reduction="none", label_smoothing=label_smoothing)

    def evaluate(self, model: nn.Module, data: Mapping[str, Tensor]) -> dict[str, float]:
        """Return `auc` (the area under the ROC curve), `accuracy` and `loss` (nats an example)."""
        labels = data["labels"]
        batches = data[self.inputs].split(EVALUATION_BATCH)
        logits = torch.cat([model(batch).double() for batch in batches])
        metrics = torch.stack(
            (
                area_under_roc(logits[:, 1] - logits[:, 0], labels),
                (logits.argmax(dim=1) == labels).double().mean(),
                F.cross_entropy(logits, labels),
            )
        )
        auc, accuracy, loss = metrics.tolist()
        return {"auc": auc, "accuracy": accuracy, "loss": loss}
