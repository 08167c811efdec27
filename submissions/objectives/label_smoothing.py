"""Label smoothing: cross-entropy against a target that leaves ε to all classes alike.

Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision", arXiv 1512.00567,
section 7. With K classes, the true one y, and p the softmax of the logits:

    L = -(1 - ε) log p_y - (ε / K) Σ_k log p_k

ε = 0.1 as in the paper. The K classes include y, which so keeps 1 - ε + ε/K. The smallest possible
loss is above 0: a method that relies on its being 0, such as a Polyak step size, needs another.
Sequences: the mean over an example's positions; those whose target is -100 do not count.
"""

import torch.nn.functional as F
from torch import Tensor

from harness.session import Objective

IGNORED = -100  # torch's own mark for a position without a target


class LabelSmoothing(Objective):
    """Smoothed cross-entropy.

    Raises:
        ValueError: `epsilon`, the probability given to all classes together, is out of its range.
    """

    def __init__(self, epsilon: float = 0.1) -> None:
        if not 0 <= epsilon < 1:
            raise ValueError(f"LabelSmoothing: epsilon must be a number in [0, 1), not {epsilon!r}")
        self._epsilon = epsilon

    def __call__(self, outputs: Tensor, targets: Tensor, ids: Tensor) -> Tensor:  # noqa: ARG002
        losses = F.cross_entropy(
            outputs.flatten(end_dim=-2),
            targets.flatten(),
            ignore_index=IGNORED,
            label_smoothing=self._epsilon,
            reduction="none",
        ).view(targets.shape)
        if targets.ndim == 1:
            return losses
        return losses.sum(dim=1) / (targets != IGNORED).sum(dim=1).clamp(min=1)
