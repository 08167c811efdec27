"""One file for three places, which share what stands in the module."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from harness.session import Averaging, Factors, Schedule

print("the file runs")  # noqa: T201
steps: list[float] = []


class Steps(torch.optim.SGD):
    def __init__(self, params: object, lr: float) -> None:
        super().__init__(params, lr=lr)
        steps.append(lr)


class Keeps(Schedule):
    def __call__(self, progress: float) -> Factors:
        steps.append(progress)
        return Factors()


class Shows(Averaging):
    def update(self) -> None:
        pass

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        print("shared", len(steps), steps[0])  # noqa: T201
        yield
