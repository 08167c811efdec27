"""What the trainee does at an evaluation: shows its weights, and stands still until it goes on."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn

from harness import messages
from harness.messages import TraineeEnd
from harness.session import Averaging, Session
from harness.trainee.compilation import compile_ns
from harness.trainee.export import export_weights
from harness.trainee.memory_limit import data_limit
from harness.trainee.parts import Parts, PartsBuilder
from harness.trainee.rank_processes import OtherRanks
from harness.workload import canonical_weights

if TYPE_CHECKING:  # torch.distributed loads where there are ranks
    from harness.trainee.data_parallel import TorchRanks


class TrainingEndedError(BaseException):
    """The referee stopped the run; no `except Exception` of a submission may swallow it."""


class EvaluationStop:
    """Called with the model to evaluate; by every rank where there are several.

    Args:
        pipe: to the referee, or to rank 0 in its place.
        weights_descriptor: of the file that takes the weights.
        device: where this process trains.
        builder: knows the optimizer of a model.
        ranks: the processes that train together, None for one alone.
        others: the other ranks, on rank 0.
    """

    def __init__(
        self,
        pipe: TraineeEnd,
        weights_descriptor: int,
        device: torch.device,
        builder: PartsBuilder,
        ranks: "TorchRanks | None",
        others: OtherRanks | None,
    ) -> None:
        self._pipe = pipe
        self._weights_descriptor = weights_descriptor
        self._device = device
        self._builder = builder
        self._ranks = ranks
        self._others = others
        self._speaks = ranks is None or ranks.rank == 0
        self._compiled_before_ns = compile_ns()
        # Known once they are built, before the first step.
        self.session: Session | None = None
        self.parts: Parts | None = None

    @property
    def compiled_ns(self) -> int:
        """How long was compiled since this was made."""
        return compile_ns() - self._compiled_before_ns

    def __call__(self, model: nn.Module) -> None:
        assert self.parts is not None
        assert self.session is not None
        optimizer = self._builder.optimizer_of(model)
        with _as_evaluated(self.parts.averaging, optimizer), contextlib.ExitStack() as off_clock:
            weights = canonical_weights(model)
            if self.parts.parameterization is not None:
                weights = self.parts.parameterization.canonical_weights(model)
            peak = self._meet()
            if self._speaks:
                self._pipe.send(
                    messages.Evaluate(compile_ns=self.compiled_ns, gpu_peak_allocated_bytes=peak)
                )
            off_clock.enter_context(self.session.paused())
            if self._ranks is not None:
                self._ranks.check_alike(model)
            if self._speaks:
                with data_limit(None):  # the copy is the harness's, not the submission's
                    size = export_weights(weights, self._weights_descriptor)
                self._pipe.send(messages.Exported(size=size))
            await_going_on(self._pipe, self._others)
            if self._device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self._device)

    def _meet(self) -> int | None:
        """Wait for the device, and for all ranks; return the GPUs' peak memory in bytes."""
        peak = None
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            peak = torch.cuda.max_memory_allocated(self._device)
        if self._ranks is None:
            return peak
        total = self._ranks.total(peak or 0)
        return None if peak is None else total


@contextlib.contextmanager
def _as_evaluated(
    averaging: Averaging | None, optimizer: torch.optim.Optimizer | None
) -> Iterator[None]:
    """Have the weights to evaluate in place; on the clock, both ways.

    An optimizer that keeps two sets of weights switches by `.eval()` and `.train()`, as the
    ecosystem's do; an averaging part sees to that itself.
    """
    if averaging is not None:
        with averaging.evaluated():
            yield
        return
    switch = {name: getattr(optimizer, name, None) for name in ("eval", "train")}
    if callable(switch["eval"]):
        switch["eval"]()
    yield
    if callable(switch["train"]):
        switch["train"]()


def await_going_on(pipe: TraineeEnd, others: OtherRanks | None) -> None:
    """Block until the referee starts or resumes the run, and tell the others; raise if it stops."""
    message = pipe.receive()
    if others is not None:
        others.tell(message)
    if isinstance(message, messages.Stop):
        raise TrainingEndedError
