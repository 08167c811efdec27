"""A session without processes, around a workload of numbers."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec
import torch
from records.synthetic_runs import SyntheticRun
from torch import Tensor, nn

from harness.counters import SIZE_BYTES, Counters, create_shared_file
from harness.seeds import SeedStreams
from harness.session import Batch, Data, Objective, Selection, Session, Training
from harness.spec import RunSpec
from harness.trainee.reference_training import UniformShuffling
from harness.workload import Workload

EXAMPLES, BATCH, GRID = 25, 10, 3000  # of the synthetic card: a grid point every 100 steps


class Numbers(Workload):
    """Example i is the number i, plus a random shift of less than a half; its target is i."""

    def prepare(self) -> dict[str, dict[str, Tensor]]:
        raise AssertionError("no data is prepared")

    def build_model(self) -> nn.Module:
        return nn.Linear(1, 1)

    def training_batch(
        self, data: Mapping[str, Tensor], indices: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        shift = torch.rand(len(indices), generator=generator) * 0.4
        return (data["numbers"][indices] + shift).unsqueeze(1), indices

    def synthetic_batch(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        raise AssertionError("no pace is measured")

    def per_example_loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        return (outputs.flatten(1).sum(dim=1) - targets).square() / EXAMPLES**2 + label_smoothing

    def evaluate(self, model: nn.Module, data: Mapping[str, Tensor]) -> dict[str, float]:
        raise AssertionError("a session evaluates nothing")


def small_spec(seed: int = 0) -> RunSpec:
    spec = SyntheticRun(run_id="r").spec()
    return msgspec.structs.replace(spec, streams=SeedStreams.from_seed(seed))


@dataclass
class Bench:
    """A session, what it counted, and the model passes at which it evaluated which model."""

    spec: RunSpec
    session: Session
    counters: Counters
    evaluated_at: list[int] = field(default_factory=list)
    evaluated: list[nn.Module] = field(default_factory=list)

    def step(self, model: nn.Module, examples: int = BATCH) -> None:
        self.session.count(forward=examples, backward=examples)
        self.session.maybe_evaluate(model)


class Script(Data):
    """The selections it is given, in turn, again and again."""

    def __init__(self, *selections: Selection) -> None:
        self._selections = selections

    def batches(self) -> Iterator[Selection]:
        while True:
            yield from self._selections


class Sessions:
    """Makes sessions, and closes their shared files at the end."""

    def __init__(self) -> None:
        self._descriptors: list[int] = []

    def make(
        self,
        seed: int = 0,
        *,
        spec: RunSpec | None = None,
        policy: Data | None = None,
        objective: Objective | None = None,
    ) -> Bench:
        """Return a session that shuffles uniformly, or follows `policy`."""
        spec = spec or small_spec(seed)
        self._descriptors.append(create_shared_file("test", SIZE_BYTES))
        counters = Counters(self._descriptors[-1])

        def evaluate(model: nn.Module) -> float:
            bench.evaluated_at.append(counters.model_passes)
            bench.evaluated.append(model)
            return 0.123  # what the harness's side knows reaches nobody

        def make_training(model: nn.Module) -> Training:
            raise AssertionError("no procedure asks for it")

        session = Session(
            spec,
            Numbers(spec.workload),
            {"numbers": torch.arange(EXAMPLES, dtype=torch.float32)},
            torch.device("cpu"),
            counters.words,
            evaluate,  # type: ignore[arg-type]
            make_training,
        )
        order = torch.Generator().manual_seed(spec.streams.order)
        session.follow(policy or UniformShuffling(session, order), objective)
        bench = Bench(spec=spec, session=session, counters=counters)
        return bench

    def close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)


def batch_of(session: Session, *ids: int, weights: list[float] | None = None) -> Batch:
    """Return chosen examples, as `session.batch()` would give them."""
    return session.examples_of(
        Selection(ids=torch.tensor(ids), weights=None if weights is None else torch.tensor(weights))
    )
