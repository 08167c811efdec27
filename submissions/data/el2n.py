"""EL2N: train on the examples that short pilot runs got most wrong.

Paul, Ganguli and Dziugaite 2021, "Deep Learning on a Data Diet: Finding Important Examples Early
in Training", NeurIPS, arXiv 2107.07075:

    score_i = mean over pilots of ‖softmax(f(x_i)) - onehot(y_i)‖₂
    keep a fraction k of the examples, the highest scores, save an offset of the very highest

A pilot is a fresh model, trained here for a fraction of the horizon with AdamW at a constant
learning rate (the authors: SGD with momentum, 0.1, for 10 to 20 of 200 epochs), then scored in
eval mode. Pilots run before the first batch: on the clock, their passes counted; their examples
do not count as progress of the main run. They take memory beside the model for that long.

Defaults: k = 0.5 (half of CIFAR-10, the abstract's result), no offset (the paper drops the
hardest where labels are noisy), one pilot of a tenth of the horizon. The authors recommend ten or
more pilots, whose cost they leave out of account; a score from one is noisy. A pilot that is far
from trained ranks classes, not examples: on resnet/digits half as long a pilot at lr 1e-3 left one
example of a class. They train as many steps on the subset as on all data, so the horizon is the
recipe's.

For outputs [B, T, C] a score is the mean over the tokens that count; the paper has classes only.
Examples are scored as they are trained on, distorted at random, since a session has no others.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from harness.session import Data, Selection, Session

IGNORED = -100  # the target of a token that does not count


def el2n_scores(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the scores [B] of logits [B, C] or [B, T, C] for classes [B] or [B, T].

    Raises:
        ValueError: targets are no classes, or do not fit the outputs.
    """
    fits = outputs.ndim in (2, 3) and targets.shape == outputs.shape[:-1]
    if not fits or targets.is_floating_point():
        raise ValueError(
            "EL2N: needs logits [B, C] with classes [B], or [B, T, C] with [B, T], not "
            f"{list(outputs.shape)} with {targets.dtype} {list(targets.shape)}"
        )
    error: Tensor = outputs.detach().softmax(dim=-1)
    counted = targets != IGNORED
    classes = targets.where(counted, 0).unsqueeze(-1)
    error.scatter_add_(-1, classes, torch.full_like(classes, -1, dtype=error.dtype))
    norms: Tensor = torch.linalg.vector_norm(error, dim=-1) * counted
    if targets.ndim == 1:
        return norms
    return norms.sum(dim=1) / counted.sum(dim=1).clamp(min=1)


class EL2N(Data):
    """EL2N. `keep_fraction` is k; `offset` and `pilot_fraction` are fractions too.

    Raises:
        ValueError: a hyperparameter is out of its range.
    """

    def __init__(
        self,
        *,
        session: Session,
        keep_fraction: float = 0.5,
        offset: float = 0.0,
        pilots: int = 1,
        pilot_fraction: float = 0.1,
        pilot_lr: float = 3e-3,
    ) -> None:
        if not 0 < keep_fraction <= 1:
            raise ValueError(f"EL2N: keep_fraction must be in (0, 1], not {keep_fraction!r}")
        if not 0 <= offset <= 1 - keep_fraction:
            raise ValueError(
                f"EL2N: offset must be in [0, 1 - keep_fraction = {1 - keep_fraction:.6g}], "
                f"not {offset!r}"
            )
        if pilots < 1:
            raise ValueError(f"EL2N: pilots must be at least 1, not {pilots!r}")
        if not 0 < pilot_fraction <= 1:
            raise ValueError(f"EL2N: pilot_fraction must be in (0, 1], not {pilot_fraction!r}")
        if not 0 < pilot_lr < math.inf:
            raise ValueError(f"EL2N: pilot_lr must be in (0, inf), not {pilot_lr!r}")
        self._session = session
        self._keep_fraction = keep_fraction
        self._offset = offset
        self._pilots = pilots
        self._pilot_fraction = pilot_fraction
        self._pilot_lr = pilot_lr

    def scores(self, ids: Tensor) -> Tensor:
        """Train the pilots; return their mean scores of the examples `ids` [n], on CPU."""
        session = self._session
        steps = math.ceil(self._pilot_fraction * session.horizon_examples / session.batch_size)
        total = torch.zeros(len(ids), device=session.device)
        for _ in range(self._pilots):
            pilot = session.build_model()
            optimizer = torch.optim.AdamW(pilot.parameters(), lr=self._pilot_lr)
            chosen = self._shuffled(ids)
            for _ in range(steps):
                batch = session.examples_of(next(chosen))
                losses = session.per_example_loss(session.outputs(pilot, batch), batch)
                optimizer.zero_grad()
                session.backward(losses.mean(), batch.size)
                optimizer.step()
            pilot.eval()
            with torch.no_grad():
                parts = []
                for part in ids.to(session.device).split(session.batch_size):
                    batch = session.examples_of(Selection(ids=part))
                    parts.append(el2n_scores(session.outputs(pilot, batch), batch.targets))
                total += torch.cat(parts)
        return (total / self._pilots).cpu()

    def kept(self, ids: Tensor, scores: Tensor) -> Tensor:
        """Return those of `ids` [n] to train on."""
        hardest_first = ids[scores.argsort(descending=True, stable=True)]
        start = round(self._offset * len(ids))
        return hardest_first[start : start + max(1, round(self._keep_fraction * len(ids)))]

    def batches(self) -> Iterator[Selection]:
        session = self._session
        ids = session.training_ids
        kept = self.kept(ids, self.scores(ids))
        while True:
            # A holdout begins a new epoch, without the ids that it took.
            ids = session.training_ids
            kept = kept[torch.isin(kept, ids)]
            if len(kept) == 0:
                raise ValueError(
                    "EL2N: a holdout took every example that was kept; hold out before the first "
                    "batch, or raise keep_fraction, at most 1"
                )
            for selection in self._shuffled(kept):
                yield selection
                if session.training_ids is not ids:
                    break

    def _shuffled(self, ids: Tensor) -> Iterator[Selection]:
        """Yield batches of reshuffled epochs; one may straddle two, where few ids are left."""
        session = self._session
        pending = ids[:0].to(session.device)
        while True:
            size = session.batch_size
            while len(pending) < size:
                order = torch.randperm(len(ids), generator=session.generator)
                pending = torch.cat([pending, ids[order].to(session.device)])
            yield Selection(ids=pending[:size])
            pending = pending[size:]
