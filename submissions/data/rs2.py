"""RS2: every round trains on a fresh random subset, for as many rounds as the recipe has epochs.

Okanovic et al. 2024, "Repeated Random Sampling for Minimizing the Time-to-Accuracy of Learning",
ICLR, arXiv 2305.18424. Of N training examples round t takes S_t, |S_t| = rN:

    without replacement:  the next rN of a permutation of all N, shuffled anew when used up
    with replacement:     the first rN of a permutation of its own, independent of other rounds

No subset holds an example twice either way. The schedule is laid over the smaller budget, r times
the recipe's horizon; without that the learning rate never falls, which matters as much as the
sampling.

Where N is no multiple of rN the last subset of a permutation is smaller, so that every example
comes once in a permutation; the authors' code completes it from the front of the same
permutation. Batches are cut from the stream of subsets and may straddle two, so that none is
smaller than the others and none is dropped. So without replacement, training differs from plain
reshuffling by its horizon alone, as it should: every selection method must beat that.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from harness.session import Data, Selection, Session, SetsHorizon


class RS2(Data, SetsHorizon):
    """RS2. `fraction` is r, the part of the data that a round trains on.

    Raises:
        ValueError: `fraction` is outside (0, 1].
    """

    def __init__(
        self, *, session: Session, fraction: float = 0.1, replacement: bool = False
    ) -> None:
        if not 0 < fraction <= 1:
            raise ValueError(f"RS2: fraction must be in (0, 1], not {fraction!r}")
        self._session = session
        self._fraction = fraction
        self._replacement = replacement

    def horizon_examples(self, recipe_horizon: int) -> int:
        """Return r times the recipe's horizon: as many rounds as the recipe has epochs."""
        return max(1, round(self._fraction * recipe_horizon))

    def subsets(self) -> Iterator[Tensor]:
        """Yield the ids of each round, in the order of training."""
        session = self._session
        while True:
            ids = session.training_ids
            shuffled = ids[torch.randperm(len(ids), generator=session.generator)]
            shuffled = shuffled.to(session.device)
            size = max(1, round(self._fraction * len(ids)))
            if self._replacement:
                yield shuffled[:size]
            else:
                yield from shuffled.split(size)

    def batches(self) -> Iterator[Selection]:
        session = self._session
        while True:
            ids = session.training_ids
            subsets = self.subsets()
            pending = next(subsets)
            # A holdout begins a new round, without the ids that it took.
            while session.training_ids is ids:
                size = session.batch_size
                while len(pending) < size:
                    pending = torch.cat([pending, next(subsets)])
                yield Selection(ids=pending[:size])
                pending = pending[size:]
