"""LinUpper: examples of low loss count for less, within each batch.

Sow et al. 2025, "Dynamic Loss-Based Sample Reweighting for Improved Large Language Model
Pretraining", ICLR, arXiv 2502.06733. For the losses l of a batch, without gradient:

    h = 2 (l - min l) / (max l - min l) - 1     in [-1, 1]
    f = min(h + 1, 1)                           rises up to the middle of the range, then is flat
    w = softmax(f / r);  loss = Σ w l

Every weight is 1 while the burn-in lasts: losses say little of examples at the start. A large r
makes weights equal; no example outweighs another by more than e^(1/r). Defaults: r = 1, a burn-in
of 0.05 of the horizon (the authors' GPT-2 runs: 1,000 of 20,000 steps).

The paper writes h with a half-width δ, in the code always 1, and as a difference of two large
terms; the form here is equal and exactly -1 where all losses are, so that their weights are, too.
Weights sum to 1, so Σ wl ÷ Σ w is the paper's loss. The range is that of the batch: the method
depends on its size. Batches are the reference recipe's: reshuffled epochs, a last, smaller batch
dropped; a batch that is to be larger than an epoch is an epoch. Nothing is read back from the
device.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from harness.session import Data, LossWeigher, Selection, Session


class LinUpper(Data, LossWeigher):
    """LinUpper. `temperature` is r, `burn_in` a fraction of the horizon.

    Raises:
        ValueError: `temperature` is not positive and finite, `burn_in` outside [0, 1].
    """

    def __init__(
        self, *, session: Session, temperature: float = 1.0, burn_in: float = 0.05
    ) -> None:
        if not 0 < temperature < math.inf:
            raise ValueError(f"LinUpper: temperature must be in (0, inf), not {temperature!r}")
        if not 0 <= burn_in <= 1:
            raise ValueError(f"LinUpper: burn_in must be in [0, 1], not {burn_in!r}")
        self._session = session
        self._temperature = temperature
        self._burn_in = burn_in

    @torch.no_grad()
    def weigh(self, ids: Tensor, losses: Tensor) -> Tensor:  # noqa: ARG002 - losses say it all
        """Return weights [B] that sum to 1, or are all 1 during the burn-in."""
        session = self._session
        if session.examples <= self._burn_in * session.horizon_examples:
            return torch.ones_like(losses)
        low, high = losses.aminmax()
        # 0 ÷ the smallest number, where all losses are equal
        h = 2 * (losses - low) / (high - low).clamp(min=torch.finfo(losses.dtype).tiny) - 1
        return torch.softmax((h + 1).clamp(max=1) / self._temperature, dim=0)

    def batches(self) -> Iterator[Selection]:
        session = self._session
        while True:
            ids = session.training_ids
            shuffled = ids[torch.randperm(len(ids), generator=session.generator)]
            shuffled = shuffled.to(session.device)
            position = 0
            # A holdout begins a new epoch, without the ids that it took.
            while session.training_ids is ids:
                size = min(session.batch_size, len(ids))
                if position + size > len(ids):
                    break
                yield Selection(ids=shuffled[position : position + size])
                position += size
