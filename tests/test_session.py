"""The session without processes: batches, counts, the grid, the not-finite flag."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import msgspec
import pytest
import torch
from records.synthetic_runs import SyntheticRun
from torch import Tensor, nn

from harness.counters import SIZE_BYTES, Counters, create_shared_file
from harness.seeds import SeedStreams
from harness.session import Session
from harness.spec import RunSpec
from harness.workload import Workload

EXAMPLES, BATCH, GRID = 25, 10, 3000  # of the synthetic card: a grid point every 100 steps


class Numbers(Workload):
    """Example i is the number i, plus a random shift of less than a half."""

    def prepare(self) -> dict[str, dict[str, Tensor]]:
        raise AssertionError("no data is prepared")

    def build_model(self) -> nn.Module:
        return nn.Linear(1, 1)

    def training_batch(
        self, data: Mapping[str, Tensor], indices: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        shift = torch.rand(len(indices), generator=generator) * 0.4
        return data["numbers"][indices] + shift, indices

    def synthetic_batch(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        raise AssertionError("no pace is measured")

    def per_example_loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        return outputs - targets + label_smoothing

    def evaluate(self, model: nn.Module, data: Mapping[str, Tensor]) -> dict[str, float]:
        raise AssertionError("a session evaluates nothing")


@dataclass
class Bench:
    session: Session
    counters: Counters
    evaluated_at: list[int]  # model passes

    def step(self, examples: int = BATCH) -> None:
        self.session.count(forward=examples, backward=examples)
        self.session.maybe_evaluate(MODEL, examples=examples)


MODEL = nn.Linear(1, 1)


@pytest.fixture
def make() -> Iterator[Callable[..., Bench]]:
    descriptors: list[int] = []

    def build(seed: int = 0) -> Bench:
        spec: RunSpec = SyntheticRun(run_id="r").spec()
        spec = msgspec.structs.replace(spec, streams=SeedStreams.from_seed(seed))
        descriptors.append(create_shared_file("test", SIZE_BYTES))
        counters = Counters(descriptors[-1])
        evaluated_at: list[int] = []

        def evaluate(model: nn.Module) -> None:
            assert model is MODEL
            evaluated_at.append(counters.model_passes)

        data = {"numbers": torch.arange(EXAMPLES, dtype=torch.float32)}
        session = Session(
            spec, Numbers(spec.workload), data, torch.device("cpu"), counters.words, evaluate
        )
        return Bench(session, counters, evaluated_at)

    yield build
    for descriptor in descriptors:
        os.close(descriptor)


def test_an_epoch_is_a_permutation_without_its_last_smaller_batch(
    make: Callable[..., Bench],
) -> None:
    session = make().session
    epochs = []
    for _ in range(3):
        ids = torch.cat([session.batch()[1] for _ in range(EXAMPLES // BATCH)])
        assert len(ids) == 20 and len(ids.unique()) == 20
        epochs.append(ids.tolist())
    assert epochs[0] != epochs[1] != epochs[2]


def test_one_seed_gives_the_same_batches_whatever_the_submission_draws(
    make: Callable[..., Bench],
) -> None:
    one, same, other = make(1).session, make(1).session, make(2).session
    differs = False
    for _ in range(6):
        inputs, ids = one.batch()
        torch.randn(5)  # a submission has a stream of its own
        again, same_ids = same.batch()
        assert torch.equal(inputs, again) and torch.equal(ids, same_ids)
        differs |= not torch.equal(ids, other.batch()[1])
    assert differs


def test_evaluations_fall_at_the_first_boundary_at_or_after_each_point(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    for _ in range(100):
        bench.step()
    assert bench.evaluated_at == [GRID]  # exactly at the point, and none after step 1
    for _ in range(14):
        bench.step(examples=70)  # 210 passes, up to 5,940
    assert bench.evaluated_at == [GRID]
    bench.step(examples=70)  # 6,150: beyond the point at 6,000
    assert bench.evaluated_at == [GRID, 6150]


def test_one_evaluation_however_many_points_a_step_crossed(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.step(examples=3500)  # 10,500 passes: three points
    assert bench.evaluated_at == [10_500]
    bench.step(examples=490)  # 11,970
    assert bench.evaluated_at == [10_500]
    bench.step()  # 12,000: the fourth
    assert bench.evaluated_at == [10_500, 12_000]


def test_an_evaluation_that_is_asked_for_comes_once_and_moves_no_point(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    bench.step()
    bench.counters.ask_for_evaluation()
    for _ in range(99):
        bench.step()
    assert bench.evaluated_at == [60, GRID]


def test_steps_examples_and_passes_are_counted(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.session.count(forward=7, backward=0)  # a probe
    bench.step()
    bench.step(examples=4)
    assert (bench.counters.steps, bench.counters.examples) == (2, 14)
    assert bench.counters.model_passes == 7 + 3 * 14
    assert bench.session.examples == 14
    assert bench.session.progress(5000) == 0.5
    assert bench.session.progress(20_000) == 1.0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_loss_that_is_not_finite_is_remembered(
    make: Callable[..., Bench], value: float
) -> None:
    bench = make()
    for i in range(100):
        loss = torch.tensor(value if i == 3 else 0.5, requires_grad=True)
        bench.session.watch(loss)
        bench.step()
    assert bench.evaluated_at == [GRID] and bench.counters.not_finite


def test_huge_losses_are_finite(make: Callable[..., Bench]) -> None:
    bench = make()
    for _ in range(100):
        bench.session.watch(torch.tensor(3e38))
        bench.session.watch(torch.tensor(-1e300, dtype=torch.float64))
        bench.step()
    assert not bench.counters.not_finite


def test_losses_have_the_recipes_label_smoothing(make: Callable[..., Bench]) -> None:
    session = make().session
    losses = session.per_example_loss(torch.ones(3), torch.zeros(3))
    assert torch.equal(losses, torch.full((3,), 1.0))
