"""The session: batches, losses and work counted, step boundaries turned into evaluations.

It never returns an evaluation metric and holds no evaluation data.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from harness import counters as words
from harness.prepared_data import starting_model
from harness.session.batch_norm import frozen_batch_norm, recalibrated
from harness.session.contracts import (
    Batch,
    Data,
    LossObserver,
    LossWeigher,
    Objective,
    Selection,
    WholeBatch,
)

if TYPE_CHECKING:
    from harness.session.contracts import Training
    from harness.session.ranks import Ranks
    from harness.spec import RunSpec
    from harness.workload import Workload


class Session:
    """The training side of one run.

    Where several processes (ranks) train together each has a session, and all make the same
    calls in the same order. They draw the same selections and random numbers and count as one;
    what differs is the part of a batch that each computes.

    Attributes:
        device: where training happens.
        training_examples: N; ids run from 0 to N − 1.
        training_ids: the ids [n] to train on, without those held out; on CPU.
        groups: group of each example [N], None where the workload has none.
        batch_size: examples of the next step, as the schedule has set it.
        horizon_examples: over how many examples the schedule runs.
        last_batch: what was trained on last.
    """

    def __init__(
        self,
        spec: "RunSpec",
        workload: "Workload",
        data: Mapping[str, Tensor],
        device: torch.device,
        counters: memoryview,
        evaluate: Callable[[nn.Module], None],
        make_training: "Callable[[nn.Module], Training]",
        ranks: "Ranks | None" = None,
    ) -> None:
        """Made by the harness.

        Args:
            spec: the resolved run.
            workload: the workload's code, without evaluation data.
            data: the training split, on the device.
            device: where training happens.
            counters: the words (harness.counters), written here only; rank 0's are shared.
            evaluate: called at a due step boundary; returns when training goes on.
            make_training: builds the recipe's optimizer and schedule around a model.
            ranks: the processes that train together, None for one alone.
        """
        self.device = device
        self.training_examples: int = next(iter(data.values())).shape[0]
        self.training_ids = torch.arange(self.training_examples)
        self.groups = data.get("groups")
        self.batch_size = spec.recipe.batch_size
        self.horizon_examples = spec.recipe.horizon_examples
        self.last_batch: Batch | None = None
        # For a submission's own draws; torch's global generator is seeded for it too.
        self.generator = torch.Generator().manual_seed(spec.streams.submission)
        self._workload = workload
        self._data = data
        self._words = counters
        self._evaluate = evaluate
        self._make_training = make_training
        self._ranks = ranks
        self._own_passes = 0  # of this rank, not yet added to the group's
        self._agreed_elapsed_ns = 0  # as rank 0 had it at the last step boundary
        self._augments: bool | None = None  # whether the workload draws; None: not yet seen
        self._label_smoothing = spec.recipe.label_smoothing
        self._grid = spec.workload.grid_model_passes
        self._due = self._grid
        # Two streams: what a submission looks at besides must not change what it trains on.
        self._training_stream = torch.Generator(device=device).manual_seed(
            spec.streams.augmentation
        )
        self._beside_stream = torch.Generator(device=device).manual_seed(spec.streams.beside)
        self._selections: Iterator[Selection] = iter(())
        self._objective: Objective | None = None
        self._policy: object = None  # what it hears of depends on which contracts it keeps
        self._began_ns = time.perf_counter_ns()
        self._paused_ns = 0
        # NaN or infinity in any training loss stays in this sum: one add a step, no sync.
        self._loss_residue = torch.zeros((), device=device)

    # -- where the run stands --------------------------------------------------------------

    @property
    def steps(self) -> int:
        """Steps taken."""
        return self._words[words.STEPS]

    @property
    def examples(self) -> int:
        """Training examples consumed."""
        return self._words[words.EXAMPLES]

    @property
    def elapsed_s(self) -> float:
        """Seconds of training so far, evaluations left out; the referee's clock decides.

        Several ranks have the time of the last step boundary, so that all decide alike by it.
        """
        return (self._own_elapsed_ns if self._ranks is None else self._agreed_elapsed_ns) / 1e9

    @property
    def _own_elapsed_ns(self) -> int:
        return time.perf_counter_ns() - self._began_ns - self._paused_ns

    def progress(self, examples: int) -> float:
        """Return `examples` ÷ horizon, clamped to 1."""
        return min(1.0, examples / self.horizon_examples)

    # -- training --------------------------------------------------------------------------

    def batch(self) -> Batch:
        """Return the next batch that the data policy selects; of several ranks this one's part."""
        selection = next(self._selections)
        batch = self._look_up(selection, self._training_stream, divide=True)
        self.last_batch = batch
        self._words[words.EXAMPLES] += len(selection.ids)
        return batch

    def examples_of(self, selection: Selection) -> Batch:
        """Return the examples of a selection, augmented as in training; none is counted.

        Several ranks have all of them each.
        """
        return self._look_up(selection, self._beside_stream, divide=False)

    def _look_up(
        self, selection: Selection, augmentation: torch.Generator, *, divide: bool
    ) -> Batch:
        ids = selection.ids.to(self.device)
        weights = None if selection.weights is None else selection.weights.to(self.device)
        own = self._ranks.own_part(len(ids)) if divide and self._ranks is not None else None
        if own is None:
            inputs, targets = self._workload.training_batch(self._data, ids, augmentation)
            return Batch(ids=ids, inputs=inputs, targets=targets, weights=weights)
        inputs, targets = self._look_up_part(ids, own, augmentation)
        return Batch(
            ids=ids[own],
            inputs=inputs,
            targets=targets,
            weights=None if weights is None else weights[own],
            whole=WholeBatch(ids=ids, weights=weights, own=own),
        )

    def _look_up_part(
        self, ids: Tensor, own: slice, augmentation: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of a rank's part, the very ones that one process would have.

        So a workload that augments does it for the whole batch on every rank. Whether one does
        shows at its first batch.
        """
        if self._augments is False:
            return self._workload.training_batch(self._data, ids[own], augmentation)
        before = augmentation.get_state()
        inputs, targets = self._workload.training_batch(self._data, ids, augmentation)
        self._augments = not torch.equal(before, augmentation.get_state())
        return inputs[own], targets[own]

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the model's outputs; counts a forward pass."""
        self.count(forward=batch.size, backward=0)
        with self._randomness_for(batch):
            return model(batch.inputs)  # type: ignore[no-any-return]

    def _randomness_for(self, batch: Batch) -> AbstractContextManager[None]:
        """Have what is done with a rank's part of a batch draw from a stream of its own."""
        if batch.whole is None or self._ranks is None:
            return nullcontext()
        return self._ranks.own_randomness()

    def per_example_loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the training losses [B]: the objective's, else the workload's own."""
        if self._objective is not None:
            with self._randomness_for(batch):
                return self._objective(outputs, batch.targets, batch.ids)
        return self._workload.per_example_loss(outputs, batch.targets, self._label_smoothing)

    def loss(self, losses: Tensor, batch: Batch) -> Tensor:
        """Return the scalar to minimise, Σwl ÷ Σw; the data policy hears of the losses.

        Of a batch that several ranks divide: one whose mean over the ranks that is.
        """
        heard = self._heard(losses, batch)
        if isinstance(self._policy, LossObserver):
            self._policy.observe(*heard)
        loss = self._weighted_mean(losses, batch, heard)
        self._loss_residue.add_(loss.detach(), alpha=0.0)
        return loss

    def probe_loss(self, losses: Tensor, batch: Batch) -> Tensor:
        """Return the scalar loss of a repeated look at a batch; nobody is told of it."""
        return self._weighted_mean(losses, batch, self._heard(losses, batch))

    def _heard(self, losses: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return ids and losses, detached, as the data policy hears of them: the whole batch's."""
        losses = losses.detach()
        if batch.whole is None or self._ranks is None:
            return batch.ids, losses
        if isinstance(self._policy, LossObserver | LossWeigher):
            losses = self._ranks.gathered(losses, len(batch.whole.ids))
        return batch.whole.ids, losses

    def _weighted_mean(self, losses: Tensor, batch: Batch, heard: tuple[Tensor, Tensor]) -> Tensor:
        whole = batch.whole
        weights = batch.weights if whole is None else whole.weights
        if isinstance(self._policy, LossWeigher):
            weights = self._policy.weigh(*heard)
        if whole is None or self._ranks is None:
            return losses.mean() if weights is None else (weights * losses).sum() / weights.sum()
        # Of the whole batch's mean what comes from this part, times the ranks.
        if weights is None:
            return losses.sum() * (self._ranks.count / len(whole.ids))
        return (weights[whole.own] * losses).sum() * (self._ranks.count / weights.sum())

    def backward(self, loss: Tensor, examples: int, *, create_graph: bool = False) -> None:
        """Backpropagate; counts a backward pass of so many examples.

        With `create_graph` the gradients can be differentiated again, and keep the graph alive
        until they are dropped: `optimizer.zero_grad()`.
        """
        if create_graph:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", r"Using backward\(\) with create_graph=True")
                loss.backward(create_graph=True)
        else:
            loss.backward()
        self.count(forward=0, backward=examples)

    def count(self, *, forward: int, backward: int) -> None:
        """Count examples forwarded (1 model pass each) and backwarded (2 each).

        Several ranks count each its own; the sums are taken at step boundaries.
        """
        passes = forward + 2 * backward
        if self._ranks is None:
            self._words[words.MODEL_PASSES] += passes
        else:
            self._own_passes += passes
            self._ranks.advance()

    # -- beside the training ---------------------------------------------------------------

    def score(self, model: nn.Module, ids: Tensor) -> Tensor:
        """Return the losses [B] of examples `ids`, without gradients; counts the forward pass.

        Batch norm uses the batch's statistics and keeps its own. Several ranks divide the
        examples, and each has all the losses.
        """
        batch = self._look_up(Selection(ids=ids), self._beside_stream, divide=True)
        with torch.no_grad(), frozen_batch_norm(model):
            losses = self.per_example_loss(self.outputs(model, batch), batch)
        if batch.whole is None or self._ranks is None:
            return losses
        return self._ranks.gathered(losses, len(ids))

    def recalibrate(self, model: nn.Module, batches: int) -> None:
        """Estimate batch-norm statistics anew on training data; counts the forward passes.

        Does nothing to a model without batch norm. Several ranks do all of it each.
        """
        with recalibrated(model) as needed:
            if needed:
                for _ in range(batches):
                    chosen = torch.randint(
                        len(self.training_ids), (self.batch_size,), generator=self.generator
                    )
                    batch = self.examples_of(Selection(ids=self.training_ids[chosen]))
                    with torch.no_grad():
                        self.outputs(model, batch)

    def build_model(self) -> nn.Module:
        """Return a model as a run starts with, drawn from the submission's random stream.

        For pilots, teachers and small helpers; whatever they cost is on the clock.
        """
        return starting_model(self._workload).to(self.device).train()

    def training(self, model: nn.Module) -> "Training":
        """Return the recipe's training of `model`: its optimizer and schedule, fresh.

        For procedures: `training.step()` takes one step as the reference loop would.
        """
        return self._make_training(model)

    def holdout(self, fraction: float) -> Tensor:
        """Take so much of the training data out of training; return its ids [n], on CPU.

        Raises:
            ValueError: the fraction is negative, or leaves nothing to train on.
        """
        count = round(fraction * len(self.training_ids))
        if not 0 <= count < len(self.training_ids):
            raise ValueError(f"session.holdout: fraction must be in [0, 1), not {fraction!r}")
        order = torch.randperm(len(self.training_ids), generator=self.generator)
        held = self.training_ids[order[:count]]
        self.training_ids = self.training_ids[order[count:].sort().values]
        return held

    def maybe_evaluate(self, model: nn.Module) -> None:
        """Mark a step boundary; evaluate `model` where one is due.

        An evaluation falls due at every multiple of the card's grid in model passes; however
        many points a step crossed, it is evaluated once.
        """
        shared = self._words
        shared[words.STEPS] += 1
        asked = bool(shared[words.EVALUATE_NOW])
        if self._ranks is not None:
            asked = self._meet(self._ranks, asked)
        if shared[words.MODEL_PASSES] < self._due and not asked:
            return
        not_finite = not torch.isfinite(self._loss_residue).item()
        if self._ranks is not None:
            not_finite = self._ranks.any(not_finite)
        shared[words.NOT_FINITE] = int(not_finite)
        self._evaluate(model)
        shared[words.EVALUATE_NOW] = 0
        self._due = (shared[words.MODEL_PASSES] // self._grid + 1) * self._grid

    def _meet(self, ranks: "Ranks", asked: bool) -> bool:
        """Take in what the other ranks did since the last step boundary, and what rank 0 says."""
        ranks.advance()
        passes, asked, self._agreed_elapsed_ns = ranks.at_boundary(
            self._own_passes, asked, self._own_elapsed_ns
        )
        self._own_passes = 0
        self._words[words.MODEL_PASSES] += passes
        return asked

    # -- the harness's side ----------------------------------------------------------------

    def follow(self, policy: Data, objective: Objective | None) -> None:
        """Take batches from `policy` and losses from `objective`."""
        self._policy = policy
        self._selections = policy.batches()
        self._objective = objective

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time of the block out of `elapsed_s`."""
        begun_ns = time.perf_counter_ns()
        try:
            yield
        finally:
            self._paused_ns += time.perf_counter_ns() - begun_ns
