"""Selective-Backprop: a forward pass decides which examples are worth a backward pass.

Jiang et al. 2019, "Accelerating Deep Learning by Focusing on the Biggest Losers",
arXiv 1910.00762. With F the empirical distribution function of the last R losses:

    p(l) = F(l)^β, F(l) = share of the last R losses that are ≤ l
    candidates are scored in batches and kept with probability p, until a training batch is full

Defaults β = 1, R = 1024. While F fits the candidates, 1 / (β + 1) of them are kept: a training
batch costs about β + 1 scoring forwards beside its own forward and backward. Candidates come in
the order of reshuffled epochs; those kept beyond a full batch open the next one. As in the
authors' code the first epoch trains on everything, here unscored, and the schedule counts the
examples trained on.

- Their F counts losses < l, so that p(smallest) = 0 and equal losses would never be kept. With ≤,
  and after at most 4(β + 1) scorings a batch, filling up with the likeliest of the last
  candidates, a batch always comes to an end.
- An example is distorted anew when it is trained on after it was scored (they keep the input).
- Each scoring reads back how many were kept: one sync, since the next decision is the host's.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from harness.session import Data, Selection, Session


class SelectiveBackprop(Data):
    """Selective-Backprop. `beta` is β, `history` is R, both as above.

    Raises:
        ValueError: `beta` is negative or not finite, `history` below 1, `primed_epochs` negative.
    """

    def __init__(
        self,
        *,
        session: Session,
        model: nn.Module,
        beta: float = 1.0,
        history: int = 1024,
        primed_epochs: int = 1,
    ) -> None:
        if not 0 <= beta < math.inf:
            raise ValueError(f"SelectiveBackprop: beta must be in [0, inf), not {beta!r}")
        if history < 1:
            raise ValueError(f"SelectiveBackprop: history must be at least 1, not {history!r}")
        if primed_epochs < 0:
            raise ValueError(
                f"SelectiveBackprop: primed_epochs must be at least 0, not {primed_epochs!r}"
            )
        self._session = session
        self._model = model
        self._beta = beta
        self._history_length = history
        self._primed_epochs = primed_epochs
        self._most_scorings = math.ceil(4 * (beta + 1))
        self._history = torch.empty(0, device=session.device)
        self._drawn = torch.empty(0, dtype=torch.int64, device=session.device)

    def probabilities(self, losses: Tensor) -> Tensor:
        """Take losses [B] into the history; return the chance of each to be kept."""
        losses = losses.to(self._history.dtype)
        self._history = torch.cat([self._history, losses])[-self._history_length :]
        rank = torch.searchsorted(self._history.sort().values, losses, right=True)
        return (rank / len(self._history)) ** self._beta

    def batches(self) -> Iterator[Selection]:
        session = self._session
        unscored = 0  # examples yielded without a scoring
        while True:
            training_ids = session.training_ids
            kept = self._drawn = self._drawn[:0]
            # A holdout begins a new epoch, without the ids that it took.
            while session.training_ids is training_ids:
                size = session.batch_size
                if unscored < self._primed_epochs * len(training_ids):
                    unscored += size
                    yield Selection(ids=self._candidates(size))
                else:
                    kept = self._filled(kept, size)
                    yield Selection(ids=kept[:size])
                    kept = kept[size:]

    def _filled(self, kept: Tensor, size: int) -> Tensor:
        """Score candidates; return `kept` with those kept of them, `size` ids or more."""
        session = self._session
        for scoring in range(1, self._most_scorings + 1):
            if len(kept) >= size:
                break
            ids = self._candidates(size)
            p = self.probabilities(session.score(self._model, ids))
            draw = torch.rand(size, generator=session.generator).to(session.device)
            chosen = draw < p
            kept = torch.cat([kept, ids[chosen]])
            if scoring == self._most_scorings and len(kept) < size:
                likeliest = p.masked_fill(chosen, -1).argsort(descending=True)
                kept = torch.cat([kept, ids[likeliest[: size - len(kept)]]])
        return kept

    def _candidates(self, count: int) -> Tensor:
        """Return the next `count` ids of an endless walk through reshuffled epochs."""
        session = self._session
        while len(self._drawn) < count:
            ids = session.training_ids
            shuffled = ids[torch.randperm(len(ids), generator=session.generator)]
            self._drawn = torch.cat([self._drawn, shuffled.to(session.device)])
        candidates, self._drawn = self._drawn[:count], self._drawn[count:]
        return candidates
