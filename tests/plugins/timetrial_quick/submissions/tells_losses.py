"""Says what a data policy hears, in each of several processes."""

import os
from collections.abc import Iterator

import torch
from torch import Tensor

from harness.session import Data, LossObserver, Selection, Session
from timetrial_quick.faulty import leave_word


class TellsLosses(Data, LossObserver):
    """Leaves word of the mean loss of each batch, which all ranks have to hear alike."""

    def __init__(self, *, session: Session) -> None:
        self._session = session

    def batches(self) -> Iterator[Selection]:
        ids = self._session.training_ids
        while True:
            shuffled = ids[torch.randperm(len(ids), generator=self._session.generator)]
            # 31 examples and weights: nothing comes out even.
            for chosen in shuffled.split(self._session.batch_size - 1):
                yield Selection(ids=chosen, weights=1 + chosen.float() % 3)

    def observe(self, ids: Tensor, losses: Tensor) -> None:
        assert ids.shape == losses.shape
        rank, loss = os.environ.get("RANK", "0"), losses.double().mean().item()
        leave_word(f"{rank} {self._session.steps} {loss:.9f}")
