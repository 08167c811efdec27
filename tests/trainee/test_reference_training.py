import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from small_session import BATCH, EXAMPLES, Sessions
from torch import Tensor, nn

from harness.cards import Closure as ClosureKind
from harness.session import Factors, Schedule
from harness.trainee.reference_training import (
    GroupScaling,
    RecipeTraining,
    WarmupCosine,
    train,
    warmup_cosine,
)


@pytest.fixture
def sessions() -> Iterator[Sessions]:
    made = Sessions()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (0.0, 0.0),
        (0.05, 0.5),
        (0.1, 1.0),
        # A third, half and two thirds of the way down from 1 to 0.2, on a half cosine.
        (0.4, 0.2 + 0.8 * 0.75),
        (0.55, 0.2 + 0.8 * 0.5),
        (0.7, 0.2 + 0.8 * 0.25),
        (1.0, 0.2),
    ],
)
def test_warm_up_and_cosine_by_hand(progress: float, expected: float) -> None:
    assert warmup_cosine(progress, 0.1, 0.2) == pytest.approx(expected)
    factors = WarmupCosine(0.1, 0.2)(progress)
    assert factors == Factors(learning_rate=warmup_cosine(progress, 0.1, 0.2))


def test_the_schedule_without_warm_up_and_with_nothing_else() -> None:
    assert warmup_cosine(0.0, 0.0, 0.0) == 1.0
    assert warmup_cosine(0.5, 0.0, 0.0) == pytest.approx(0.5)
    assert warmup_cosine(1.0, 0.0, 0.0) == pytest.approx(0.0)
    assert warmup_cosine(0.5, 1.0, 0.0) == 0.5
    assert warmup_cosine(1.0, 1.0, 0.0) == 1.0


def groups(*settings: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"params": list(nn.Linear(2, 2).parameters()), **own} for own in settings]


def test_each_group_keeps_its_own_learning_rate() -> None:
    optimizer = torch.optim.SGD(groups({"lr": 0.1}, {"lr": 0.4}))
    scaling, schedule = GroupScaling(optimizer), WarmupCosine(0.1, 0.0)
    for progress, factor in [(0.05, 0.5), (0.1, 1.0), (0.55, 0.5), (0.05, 0.5)]:
        scaling.apply(schedule(progress))
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([0.1 * factor, 0.4 * factor])


class FirstBetaApart(torch.optim.Optimizer):
    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.3, "beta1": 0.7, "beta2": 0.99})


class WithoutKeys(torch.optim.Optimizer):
    def __init__(self, params: Any) -> None:
        super().__init__(params, {"patience": 3})


FACTORS = Factors(learning_rate=0.5, weight_decay=3.0, momentum=0.25, batch_size=7.0)


@pytest.mark.parametrize(
    ("make", "base", "scaled"),
    [
        (
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
            {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "dampening": 0},
            {"lr": 0.05, "momentum": 0.225, "weight_decay": 0.03, "dampening": 0},
        ),
        (
            lambda p: torch.optim.AdamW(p, lr=0.2, betas=(0.8, 0.999), weight_decay=0.1),
            {"lr": 0.2, "betas": (0.8, 0.999), "weight_decay": 0.1, "eps": 1e-8},
            {"lr": 0.1, "betas": (0.2, 0.999), "weight_decay": 0.3, "eps": 1e-8},
        ),
        (
            FirstBetaApart,
            {"lr": 0.3, "beta1": 0.7, "beta2": 0.99},
            {"lr": 0.15, "beta1": 0.175, "beta2": 0.99},
        ),
        (WithoutKeys, {"patience": 3}, {"patience": 3}),
    ],
    ids=["momentum", "betas", "beta1", "none of them"],
)
def test_factors_by_hand(
    make: Callable[[Any], torch.optim.Optimizer], base: dict[str, Any], scaled: dict[str, Any]
) -> None:
    optimizer = make(groups({}, {}))
    scaling = GroupScaling(optimizer)
    for _ in range(3):  # factors are of the base, not of one another
        scaling.apply(FACTORS)
        for group in optimizer.param_groups:
            for key, value in scaled.items():
                assert group[key] == pytest.approx(value), key
            assert group.keys() & {"lr", "weight_decay", "momentum", "betas", "beta1"} <= set(base)
    scaling.apply(Factors())
    for group in optimizer.param_groups:
        assert {key: group[key] for key in base} == base  # to the bit


def test_an_exempt_group_stays_exempt() -> None:
    optimizer = torch.optim.AdamW(groups({"weight_decay": 0.0}, {}), weight_decay=0.5)
    GroupScaling(optimizer).apply(Factors(weight_decay=2.0))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 1.0]


# -- steps ---------------------------------------------------------------------------------


class Told(Schedule):
    """Gives the factors it was told to, and remembers the progress."""

    def __init__(self, *factors: Factors) -> None:
        self._factors = itertools.chain(factors, itertools.repeat(Factors()))
        self.asked: list[float] = []

    def __call__(self, progress: float) -> Factors:
        self.asked.append(progress)
        return next(self._factors)


def training_of(
    sessions: Sessions,
    schedule: Schedule,
    model: nn.Module | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    closure: ClosureKind = "none",
) -> tuple[Any, RecipeTraining]:
    model = model or nn.Linear(1, 1)
    bench = sessions.make()
    training = RecipeTraining(
        bench.session,
        model,
        optimizer=optimizer or torch.optim.SGD(model.parameters(), lr=0.1),
        closure=closure,
        schedule=schedule,
        clip_norm=None,
        batch_size=bench.spec.recipe.batch_size,
    )
    return bench, training


def test_the_batch_size_moves_with_the_schedule(sessions: Sessions) -> None:
    moves = [1.0, 2.0, 0.25, 0.01, 1e9, 1.0]
    schedule = Told(*(Factors(batch_size=factor) for factor in moves))
    bench, training = training_of(sessions, schedule)
    asked, trained = [], []
    for _ in moves:
        training.step()
        asked.append(bench.session.batch_size)
        trained.append(bench.session.last_batch.size)
    assert asked == [10, 20, 2, 1, 10**10, 10]  # of the recipe's own, rounded, at least 1
    assert trained == [10, 20, 2, 1, EXAMPLES, 10]
    assert bench.counters.examples == sum(trained)
    assert bench.counters.model_passes == 3 * sum(trained)


def test_a_step_is_asked_for_at_the_progress_where_it_ends(sessions: Sessions) -> None:
    schedule = Told()
    bench, training = training_of(sessions, schedule)
    bench.session.horizon_examples = 4 * BATCH
    for _ in range(6):
        training.step()
    assert schedule.asked == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_a_step_is_one_of_sgd_by_hand(sessions: Sessions) -> None:
    model = nn.Linear(1, 1)
    w, b = model.weight.item(), model.bias.item()
    bench, training = training_of(sessions, Told(Factors(learning_rate=0.5)), model)
    training.step()
    batch = bench.session.last_batch
    x, t = batch.inputs.squeeze(1), batch.targets
    error = w * x + b - t
    assert model.weight.item() == pytest.approx(w - 0.05 * (2 * error * x).mean().item() / 625)
    assert model.bias.item() == pytest.approx(b - 0.05 * (2 * error).mean().item() / 625)


class CallsTwice(torch.optim.SGD):
    def step(self, closure: Any = None) -> Tensor:  # type: ignore[override]
        closure()
        loss: Tensor = closure()
        super().step()
        return loss


@pytest.mark.parametrize(("kind", "passes"), [("backward", 6), ("forward", 2)])
def test_an_optimizer_gets_the_closure_that_its_card_names(
    sessions: Sessions, kind: ClosureKind, passes: int
) -> None:
    model = nn.Linear(1, 1)
    optimizer = CallsTwice(model.parameters(), lr=0.1)
    bench, training = training_of(sessions, Told(), model, optimizer, kind)
    training.step()
    assert bench.counters.model_passes == passes * BATCH
    assert bench.counters.examples == BATCH


class _Enough(BaseException):
    pass


class RefusesClosures(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        assert closure is None
        super().step()


def test_the_loop_steps_updates_the_average_and_then_marks_the_boundary(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.Linear(1, 1)
    optimizer = RefusesClosures(model.parameters(), lr=0.1)
    bench, training = training_of(sessions, Told(), model, optimizer)
    happened: list[str] = []

    class Average:
        def update(self) -> None:
            assert bench.counters.examples == BATCH * (bench.counters.steps + 1)
            happened.append("update")

    def boundary(evaluated: nn.Module) -> None:
        assert evaluated is model
        type(bench.session).maybe_evaluate(bench.session, evaluated)
        happened.append("boundary")
        if bench.counters.steps == 3:
            raise _Enough

    monkeypatch.setattr(bench.session, "maybe_evaluate", boundary)
    with pytest.raises(_Enough):
        train(bench.session, model, training, Average())  # type: ignore[arg-type]
    assert happened == ["update", "boundary"] * 3
