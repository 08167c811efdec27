"""The session: all that a submission sees of the harness.

It hands out training batches and losses, counts work, and turns step boundaries into
evaluations. It never returns an evaluation metric and holds no evaluation data.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from harness import counters as words

if TYPE_CHECKING:
    from harness.spec import Recipe, RunSpec
    from harness.workload import Workload


class Session:
    """The training side of one run.

    Args:
        spec: the resolved run.
        workload: the workload's code, without evaluation data.
        data: the training split, on the device.
        device: where training happens.
        counters: the shared words (harness.counters), written here only.
        evaluate: called at a due step boundary with the model; returns when training goes on.
    """

    def __init__(
        self,
        spec: "RunSpec",
        workload: "Workload",
        data: Mapping[str, Tensor],
        device: torch.device,
        counters: memoryview,
        evaluate: Callable[[nn.Module], None],
    ) -> None:
        self._recipe: Recipe = spec.recipe
        self._workload = workload
        self._data = data
        self._device = device
        self._words = counters
        self._evaluate = evaluate
        self._grid = spec.workload.grid_model_passes
        self._due = self._grid
        self._examples_in_data = next(iter(data.values())).shape[0]
        self._order_stream = torch.Generator().manual_seed(spec.streams.data)
        self._augmentation_stream = torch.Generator(device=device).manual_seed(spec.streams.data)
        self._order = torch.empty(0, dtype=torch.int64)
        self._position = 0
        # NaN or infinity in any training loss stays in this sum: one add a step, no sync.
        self._loss_residue = torch.zeros((), device=device)

    @property
    def examples(self) -> int:
        """Training examples consumed so far."""
        return self._words[words.EXAMPLES]

    def progress(self, examples: int) -> float:
        """Return `examples` ÷ horizon, clamped to 1."""
        return min(1.0, examples / self._recipe.horizon_examples)

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return the next `(inputs, targets)`: uniform shuffling, each epoch a permutation.

        A last, smaller batch of an epoch is dropped.
        """
        size = self._recipe.batch_size
        if self._position + size > self._order.numel():
            self._order = torch.randperm(self._examples_in_data, generator=self._order_stream)
            self._order = self._order.to(self._device)
            self._position = 0
        indices = self._order[self._position : self._position + size]
        self._position += size
        return self._workload.training_batch(self._data, indices, self._augmentation_stream)

    def per_example_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the training losses, shape [B]."""
        return self._workload.per_example_loss(outputs, targets, self._recipe.label_smoothing)

    def watch(self, loss: Tensor) -> None:
        """Remember on the device whether a training loss was not finite."""
        self._loss_residue.add_(loss.detach(), alpha=0.0)

    def count(self, *, forward: int, backward: int) -> None:
        """Count examples forwarded (1 model pass each) and backwarded (2 each)."""
        self._words[words.MODEL_PASSES] += forward + 2 * backward

    def maybe_evaluate(self, model: nn.Module, *, examples: int) -> None:
        """Mark a step boundary after `examples` training examples; evaluate where one is due.

        An evaluation falls due at every multiple of the card's grid in model passes; however
        many points a step crossed, it is evaluated once.
        """
        shared = self._words
        shared[words.STEPS] += 1
        shared[words.EXAMPLES] += examples
        passes = shared[words.MODEL_PASSES]
        if passes < self._due and not shared[words.EVALUATE_NOW]:
            return
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        shared[words.NOT_FINITE] = int(not torch.isfinite(self._loss_residue).item())
        self._evaluate(model)
        shared[words.EVALUATE_NOW] = 0
        self._due = (passes // self._grid + 1) * self._grid
