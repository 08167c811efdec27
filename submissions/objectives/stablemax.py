"""StableMax cross-entropy: a softmax whose exponential is replaced by a function of linear growth.

Prieto et al. 2025, "Grokking at the Edge of Numerical Stability", arXiv 2501.04697:

    s(x) = x + 1          x ≥ 0
    s(x) = 1 / (1 - x)    x < 0
    L = -log(s(x_y) / Σ_k s(x_k))

The softmax's sum absorbs the other classes once a logit leads by some 17 (float32), the gradient
becomes 0 and learning stops, long before a model that only scales its logits generalises. s grows
linearly, so that confidence takes large logits (with nine others at 0, a loss of 0.01 takes 890)
and a learning rate tuned for the softmax may not fit. The paper's claim is that grokking needs no
weight decay; this changes the loss alone and leaves the recipe's weight decay as it is.

In float64, as the authors' public code. Unlike there, no ε guards 1 / (1 - x): the branch that is
not taken is given a harmless argument instead, or its infinity at x = 1 would turn the gradient
into NaN. At x = 0 both branches have slope 1, and logits of 0 must learn.
"""

import torch
from torch import Tensor

from harness.session import Objective

IGNORED = -100  # torch's own mark for a position without a target


class StableMax(Objective):
    """StableMax cross-entropy; of sequences the mean over the positions that count."""

    def __call__(self, outputs: Tensor, targets: Tensor, ids: Tensor) -> Tensor:  # noqa: ARG002
        # Apple's GPUs have no float64.
        wide = outputs.float() if outputs.device.type == "mps" else outputs.double()
        counts = targets != IGNORED
        s = stable_exponential(wide)
        chosen = s.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        losses = (s.sum(dim=-1).log() - chosen.log()).where(counts, 0.0)
        if targets.ndim == 2:
            losses = losses.sum(dim=1) / counts.sum(dim=1).clamp(min=1)
        return losses.to(outputs.dtype)


def stable_exponential(x: Tensor) -> Tensor:
    """Return s(x), elementwise."""
    return torch.where(x < 0, 1 / (1 - x.clamp(max=0)), 1 + x)
