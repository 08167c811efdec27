"""The time of Lion's step beside that of other implementations, in pairs on one thread."""

import random
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import pytorch_optimizer
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch.optim import Optimizer

from submissions.optimizers.adamw import AdamW
from submissions.optimizers.lion import Lion

pytestmark = pytest.mark.perf

ROUNDS = 40
STEPS = 8  # of each contender, in each half of a round

CONTENDERS: dict[str, Callable[[list[torch.nn.Parameter]], Optimizer]] = {
    "lion": lambda params: Lion(params, lr=1e-4, weight_decay=0.1),
    "pytorch_optimizer_lion": lambda params: pytorch_optimizer.Lion(
        params, lr=1e-4, weight_decay=0.1
    ),
    "adamw_foreach": lambda params: torch.optim.AdamW(params, foreach=True),
    "adamw_fused": AdamW,
}


def residual_network_shapes() -> list[tuple[int, ...]]:
    """The shapes of a small residual network: 59 tensors, 1.07 million parameters."""
    shapes: list[tuple[int, ...]] = [(32, 1, 3, 3), (32,), (32,)]
    channels = 32
    for width in (32, 64, 128):
        for _ in range(3):
            shapes += [(width, channels, 3, 3), (width,), (width,)]
            shapes += [(width, width, 3, 3), (width,), (width,)]
            channels = width
    return [*shapes, (10, channels), (10,)]


def contender(name: str, seed: int) -> Optimizer:
    generator = torch.Generator().manual_seed(seed)
    params = []
    for shape in residual_network_shapes():
        p = torch.nn.Parameter(torch.randn(shape, generator=generator))
        p.grad = torch.randn(shape, generator=generator)
        params.append(p)
    return CONTENDERS[name](params)


def step_ns(optimizer: Optimizer) -> float:
    start_ns = time.perf_counter_ns()
    for _ in range(STEPS):
        optimizer.step()
    return (time.perf_counter_ns() - start_ns) / STEPS


def median_interval(values: list[float], resamples: int = 5000) -> tuple[float, float]:
    """Return the 95 % percentile-bootstrap interval of the median."""
    draws = np.random.default_rng(0).choice(values, size=(resamples, len(values)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return float(low), float(high)


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_lion_is_no_slower_than_pytorch_optimizers(benchmark: BenchmarkFixture) -> None:
    order = random.Random(0)
    names = list(CONTENDERS)
    times_ns: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(ROUNDS):
        # Fresh tensors each round: where they lie in memory is noise, not answer.
        optimizers = {name: contender(name, seed=round_) for name in names}
        for optimizer in optimizers.values():
            step_ns(optimizer)
        order.shuffle(names)
        halves: dict[str, float] = dict.fromkeys(names, 0.0)
        for name in (*names, *reversed(names)):  # a linear drift cancels within the round
            halves[name] += step_ns(optimizers[name]) / 2
        for name, ns in halves.items():
            times_ns[name].append(ns)

    intervals = {}
    benchmark.extra_info["lion_step_us"] = statistics.median(times_ns["lion"]) / 1e3
    for name in CONTENDERS.keys() - {"lion"}:
        ratios = [a / b for a, b in zip(times_ns["lion"], times_ns[name], strict=True)]
        intervals[name] = median_interval(ratios)
        benchmark.extra_info[f"{name}_step_us"] = statistics.median(times_ns[name]) / 1e3
        benchmark.extra_info[f"lion_to_{name}"] = statistics.median(ratios)
        benchmark.extra_info[f"lion_to_{name}_interval"] = intervals[name]
    benchmark.extra_info["rounds"] = ROUNDS
    benchmark.pedantic(contender("lion", 0).step, rounds=50, iterations=4, warmup_rounds=2)

    low, high = intervals["pytorch_optimizer_lion"]
    assert low <= 1.0, f"Lion takes {low:.3f} to {high:.3f} of pytorch_optimizer's step"
