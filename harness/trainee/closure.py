"""The closure an optimizer may call: the loss of one batch, as often as it likes."""

import torch
from torch import Tensor, nn

from harness.cards import Closure as ClosureKind
from harness.session import Batch, Session
from harness.session.batch_norm import frozen_batch_norm
from harness.session.randomness import generator_states, set_generator_states
from harness.session.ranks import Ranks


class Closure:
    """Evaluates the training loss of one batch and, as the card says, its gradients.

    `forward`: the loss under `torch.no_grad`; no gradient buffer exists. `backward`: gradients
    too, from zero. `graph`: gradients that can be differentiated again. Every call replays the
    same batch and the same randomness; calls after the first are probes and leave batch-norm
    statistics alone. Of several ranks each evaluates its part of the batch, and all have the loss
    and the gradients of the whole.
    """

    def __init__(
        self,
        session: Session,
        model: nn.Module,
        kind: ClosureKind,
        optimizer: torch.optim.Optimizer,
        clip_norm: float | None,
        ranks: Ranks | None = None,
    ) -> None:
        self._session = session
        self._model = model
        self._ranks = ranks
        self._evaluated = model
        if ranks is not None and kind != "forward":  # without gradients nothing is averaged
            self._evaluated = ranks.reducing(model)
        self._kind = kind
        self._optimizer = optimizer
        self._clip_norm = clip_norm
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._batch: Batch | None = None
        self._calls = 0
        self._randomness: list[Tensor] = []

    def next_batch(self) -> None:
        """Take the batch of the next step."""
        self._batch = self._session.batch()
        self._calls = 0

    def __call__(self) -> Tensor:
        """Return the loss, a scalar; leaves gradients as the kind says."""
        assert self._batch is not None
        if self._kind == "none":
            return self._evaluate(self._batch)
        if self._calls == 0:
            self._randomness = generator_states(self._session.device)
            self._calls = 1
            return self._evaluate(self._batch)
        after = generator_states(self._session.device)
        set_generator_states(self._session.device, self._randomness)
        try:
            with frozen_batch_norm(self._model):
                return self._evaluate(self._batch, probe=True)
        finally:
            set_generator_states(self._session.device, after)

    def _evaluate(self, batch: Batch, *, probe: bool = False) -> Tensor:
        session = self._session
        backward = self._kind != "forward"
        if backward:  # before the forward pass: old gradients, or their graph, make room for it
            self._optimizer.zero_grad(set_to_none=True)
        with torch.set_grad_enabled(backward):
            losses = session.per_example_loss(session.outputs(self._evaluated, batch), batch)
            loss = session.probe_loss(losses, batch) if probe else session.loss(losses, batch)
            if backward:
                session.backward(loss, batch.size, create_graph=self._kind == "graph")
                if self._clip_norm is not None:
                    nn.utils.clip_grad_norm_(self._parameters, self._clip_norm, foreach=True)
        if self._ranks is not None and self._kind != "none":
            return self._ranks.mean(loss.detach())
        return loss.detach()
