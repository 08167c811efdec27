"""Evaluates exported weights on the data that only the referee holds."""

import os
from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from harness.prepared_data import load_split
from harness.spec import RunSpec
from harness.workload import canonical_weights, load_workload


class WrongWeightsError(Exception):
    """The weights are not those of the workload's model; the message says how they differ."""


class NotFiniteWeightsError(Exception):
    """A weight is NaN or infinite; the message names it."""


class Evaluator:
    """The workload's own module, and the evaluation and test splits on the device."""

    def __init__(self, spec: RunSpec, weights_descriptor: int) -> None:
        self._device = torch.device(spec.device)
        self._descriptor = weights_descriptor
        self._workload = load_workload(spec.workload_module, spec.workload)
        with torch.random.fork_rng(devices=[]):
            self._model = self._workload.build_model().to(self._device).eval()
        card = spec.workload
        self._metric = card.metric.name
        self._evaluation = load_split(card, "evaluation", self._device)
        self._test = load_split(card, "test", self._device)

    def load(self, size: int) -> None:
        """Take the exported weights into the model.

        Raises:
            WrongWeightsError: they are missing, of another name, shape or dtype.
            NotFiniteWeightsError: one is NaN or infinite.
        """
        weights = self._read(size)
        expected = canonical_weights(self._model)
        if weights.keys() != expected.keys():
            different = sorted(weights.keys() ^ expected.keys())[:3]
            raise WrongWeightsError(f"other weights than the model's: {', '.join(different)}")
        for name, tensor in expected.items():
            given = weights[name]
            if given.shape != tensor.shape or given.dtype != tensor.dtype:
                raise WrongWeightsError(
                    f"{name} has shape {tuple(given.shape)} and dtype {given.dtype}, the model's "
                    f"has {tuple(tensor.shape)} and {tensor.dtype}"
                )
        for name, tensor in expected.items():
            if not torch.isfinite(weights[name]).all():
                raise NotFiniteWeightsError(f"{name} is not finite")
            tensor.data.copy_(weights[name])

    def evaluate(self) -> tuple[float, dict[str, float]]:
        """Return the value of the metric that decides, and all metrics."""
        metrics = self._measure(self._evaluation)
        return metrics[self._metric], metrics

    def test(self) -> float:
        """Return the same metric on the test split."""
        return self._measure(self._test)[self._metric]

    def _measure(self, data: Mapping[str, Tensor]) -> dict[str, float]:
        with torch.inference_mode():
            return self._workload.evaluate(self._model, data)

    def _read(self, size: int) -> dict[str, Tensor]:
        # Read, not mapped: a mapping of a file that is cut short kills its reader.
        available = os.fstat(self._descriptor).st_size
        if not 0 < size <= available:
            raise WrongWeightsError(
                f"{size:,} bytes of weights were announced and {available:,} written"
            )
        content = bytearray()
        while len(content) < size:
            content += os.pread(self._descriptor, size - len(content), len(content))
        try:
            return load(bytes(content))
        except (SafetensorError, ValueError, KeyError, RuntimeError, TypeError) as error:
            raise WrongWeightsError(f"the exported weights cannot be read: {error}") from None
