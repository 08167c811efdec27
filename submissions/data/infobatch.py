"""InfoBatch: some of the easy examples sit out an epoch, the rest of them count for more.

Qin et al. 2024, "InfoBatch: Lossless Training Speed Up by Unbiased Dynamic Data Pruning", ICLR,
arXiv 2303.04947. With s_i the last training loss of example i and s̄ the mean, an epoch

    drops a random fraction r of {i : s_i < s̄} and gives the others of them weight 1 / (1 - r);
    every other example stays, with weight 1.

So Σ w_i l_i over an epoch has the full data's sum as its expectation. The last 1 - δ of training
uses all data with weight 1. Defaults r = 0.5, δ = 0.875.

What an epoch is. An example of weight w stands for w examples, and an epoch for all N although it
trains on fewer. The paper keeps the number of epochs, so training is shorter and the learning
rate decays over fewer steps. Here progress is examples ÷ horizon: after each batch the horizon is
set so that progress is Σw ÷ the recipe's horizon. δ is a point on the same scale and cuts the
epoch that it falls into, whatever their number. (The authors' code compares epoch numbers, and
resets its weights only where δ × epochs is whole.)

The loss. The paper takes (1/B) Σwl, the harness Σwl ÷ Σw. The direction is the same. The paper's
is longer by the batch's mean weight, whose mean is N ÷ (examples of the epoch), at most
1 / (1 - r): fewer but larger steps. An optimizer like Adam or Lion divides that slowly changing
factor out; plain SGD takes smaller steps here than in the paper, and wants so much more lr.

An example that was never trained on has no score: it is not dropped, nor is it in the mean. A
batch may straddle two epochs; an epoch is drawn before what is left of the last one is trained on.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from harness.session import Data, LossObserver, Selection, Session


class InfoBatch(Data, LossObserver):
    """InfoBatch. `prune_ratio` is r, `anneal_start` is δ.

    Raises:
        ValueError: `prune_ratio` is outside [0, 1) or `anneal_start` outside [0, 1].
    """

    def __init__(
        self, *, session: Session, prune_ratio: float = 0.5, anneal_start: float = 0.875
    ) -> None:
        if not 0 <= prune_ratio < 1:
            raise ValueError(f"InfoBatch: prune_ratio must be in [0, 1), not {prune_ratio!r}")
        if not 0 <= anneal_start <= 1:
            raise ValueError(f"InfoBatch: anneal_start must be in [0, 1], not {anneal_start!r}")
        self._session = session
        self._prune_ratio = prune_ratio
        self._anneal_start = anneal_start
        self._scores = torch.full((session.training_examples,), torch.nan, device=session.device)

    def observe(self, ids: Tensor, losses: Tensor) -> None:
        """Keep the losses [B] as the scores of `ids` [B]; never reads them back."""
        self._scores[ids] = losses.to(self._scores.dtype)

    def epoch(self, *, prune: bool) -> tuple[Tensor, Tensor]:
        """Return ids and weights of the next epoch, shuffled, on CPU."""
        generator = self._session.generator
        ids = self._session.training_ids
        weights = torch.ones(len(ids))
        kept = torch.ones(len(ids), dtype=torch.bool)
        if prune:
            scores = self._scores[ids.to(self._scores.device)].cpu()  # one sync an epoch
            low = (scores < scores.nanmean()).nonzero().flatten()  # false where there is no score
            count = round(self._prune_ratio * len(low))
            kept[low[torch.randperm(len(low), generator=generator)[:count]]] = False
            weights[low] = 1 / (1 - self._prune_ratio)
        chosen = kept.nonzero().flatten()
        chosen = chosen[torch.randperm(len(chosen), generator=generator)]
        return ids[chosen], weights[chosen]

    def batches(self) -> Iterator[Selection]:
        session = self._session
        recipe_horizon = session.horizon_examples
        trained = 0  # examples yielded
        stood_for = 0.0  # Σw of them
        pruning = True
        while True:
            training_ids = session.training_ids
            ids, weights = self.epoch(prune=pruning)
            # A holdout begins a new epoch, without the ids that it took.
            while session.training_ids is training_ids:
                if pruning and stood_for >= self._anneal_start * recipe_horizon:
                    pruning = False
                    ids, weights = self.epoch(prune=False)
                size = session.batch_size
                while len(ids) < size:
                    more_ids, more_weights = self.epoch(prune=pruning)
                    ids, weights = torch.cat([ids, more_ids]), torch.cat([weights, more_weights])
                batch_weights = weights[:size]
                trained += size
                stood_for += float(batch_weights.sum())
                session.horizon_examples = max(1, round(recipe_horizon * trained / stood_for))
                yield Selection(
                    ids=ids[:size].to(session.device), weights=batch_weights.to(session.device)
                )
                ids, weights = ids[size:], weights[size:]
