"""The reference step: forward, backward, SGD on a synthetic batch. It sets the pace."""

import time

import torch
from torch import Tensor

from harness.workload import Workload

WARM_UP_STEPS = 5
LEARNING_RATE = 1e-3


class ReferenceStep:
    """A scratch model and the step that everybody's clock is scaled by."""

    def __init__(self, workload: Workload, device: torch.device) -> None:
        generator = torch.Generator(device=device).manual_seed(0)
        self._workload = workload
        self._device = device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            self._model = workload.build_model().to(device)
        self._parameters = list(self._model.parameters())
        self._inputs, self._targets = workload.synthetic_batch(workload.card.batch_size, generator)

    def run(self) -> None:
        """Take one step and wait for the device."""
        loss = self._workload.per_example_loss(
            self._model(self._inputs), self._targets, label_smoothing=0.0
        ).mean()
        # SGD by hand: torch.optim would load torch's compiler, a second of the referee's time.
        loss.backward()
        trained: list[Tensor] = []
        gradients: list[Tensor] = []
        for parameter in self._parameters:
            if parameter.grad is not None:
                trained.append(parameter)
                gradients.append(parameter.grad)
                parameter.grad = None
        with torch.no_grad():
            torch._foreach_add_(trained, gradients, alpha=-LEARNING_RATE)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def time(self, *, at_least_s: float, at_least_steps: int) -> list[int]:
        """Return the nanoseconds of each timed step, after a warm-up."""
        for _ in range(WARM_UP_STEPS):
            self.run()
        sample_ns: list[int] = []
        begun = previous = time.perf_counter_ns()
        while len(sample_ns) < at_least_steps or previous - begun < at_least_s * 1e9:
            self.run()
            now = time.perf_counter_ns()
            sample_ns.append(now - previous)
            previous = now
        return sample_ns
