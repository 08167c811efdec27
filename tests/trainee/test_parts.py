"""How the recipe's parts are built: needs, contracts, and whose optimizer trains a model."""

import gc
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import msgspec
import pytest
import torch
from small_session import BATCH, Numbers, Sessions, small_spec
from torch import Tensor, nn

from harness.cards import Need, Place
from harness.session import (
    Averaging,
    Data,
    Factors,
    Objective,
    Parameterization,
    Procedure,
    Schedule,
    Selection,
    Session,
    SetsHorizon,
)
from harness.spec import Part
from harness.trainee.parts import Parts, PartsBuilder
from harness.trainee.reference_training import UniformShuffling, WarmupCosine
from harness.trainee.submission_loading import DisqualifiedError


class Keeps:
    """What a part was built with."""

    def __init__(self, **given: Any) -> None:
        self.given = given


class ASchedule(Keeps, Schedule):
    def __call__(self, progress: float) -> Factors:
        return Factors()


class AData(Keeps, Data, SetsHorizon):
    def batches(self) -> Iterator[Selection]:
        while True:
            yield Selection(ids=torch.arange(2))

    def horizon_examples(self, recipe_horizon: int) -> int:
        return recipe_horizon // 4


class AnObjective(Keeps, Objective):
    def __call__(self, outputs: Tensor, targets: Tensor, ids: Tensor) -> Tensor:
        return outputs.squeeze(1)


class AParameterization(Keeps, Parameterization):
    def wrap(self, model: nn.Module) -> nn.Module:
        return nn.Sequential(model)

    def canonical_weights(self, model: nn.Module) -> dict[str, Tensor]:
        return {}


class AnAveraging(Keeps, Averaging):
    def update(self) -> None:
        pass

    def evaluated(self) -> AbstractContextManager[None]:
        return nullcontext()


class AProcedure(Keeps, Procedure):
    def train(self, session: Session, model: nn.Module) -> None:
        pass


class AnOptimizer(torch.optim.SGD):
    def __init__(self, params: Any, **given: Any) -> None:
        super().__init__(params, lr=0.1)
        self.given = given


class NothingOfTheKind:
    def __init__(self) -> None:
        raise AssertionError("it is not built")


CLASSES: dict[Place, type] = {
    "optimizer": AnOptimizer,
    "schedule": ASchedule,
    "data": AData,
    "objective": AnObjective,
    "parameterization": AParameterization,
    "averaging": AnAveraging,
    "procedure": AProcedure,
}
NEEDS: dict[Place, tuple[Need, ...]] = {
    "optimizer": ("session", "model"),
    "schedule": ("session", "model", "optimizer"),
    "data": ("session", "model"),
    "objective": ("session", "model"),
    "parameterization": ("session", "model"),
    "averaging": ("session", "model", "optimizer"),
    "procedure": ("session", "model"),
}


def part(place: Place, needs: tuple[Need, ...] = (), kind: type | None = None) -> Part:
    return Part(
        name=f"my-{place}",
        place=place,
        class_name=(kind or CLASSES[place]).__name__,
        hyperparameters={},
        needs=needs,
        module=__name__,
    )


class Built:
    def __init__(self, sessions: Sessions, *parts: Part) -> None:
        spec = small_spec()
        if not any(one.place == "optimizer" for one in parts):
            parts = (*parts, *spec.recipe.parts)
        recipe = msgspec.structs.replace(spec.recipe, parts=list(parts))
        self.spec = msgspec.structs.replace(spec, recipe=recipe)
        self.bench = sessions.make(spec=self.spec)
        self.session = self.bench.session
        self.model = nn.Linear(1, 1)
        self.builder = PartsBuilder(self.spec, NumbersWithHead(self.spec.workload))
        self.parts: Parts = self.builder.build(self.session, self.model, torch.Generator())


class NumbersWithHead(Numbers):
    head_parameters: ClassVar[frozenset[str]] = frozenset({"weight"})


@pytest.fixture
def sessions() -> Iterator[Sessions]:
    made = Sessions()
    yield made
    made.close()


def test_the_reference_fills_what_nobody_names(sessions: Sessions) -> None:
    built = Built(sessions)
    parts, session = built.parts, built.session
    assert parts.model is built.model and parts.training is not None
    assert (parts.parameterization, parts.averaging, parts.procedure) == (None, None, None)
    assert isinstance(parts.training.optimizer, torch.optim.AdamW)
    assert isinstance(parts.training._schedule, WarmupCosine)
    assert isinstance(session._policy, UniformShuffling) and session._objective is None
    roles = [group["role"] for group in parts.training.optimizer.param_groups]
    assert roles == ["head", "bias"]
    assert session.horizon_examples == built.spec.recipe.horizon_examples


def test_every_part_gets_what_its_card_needs(sessions: Sessions) -> None:
    places: list[Place] = [place for place in CLASSES if place != "procedure"]
    built = Built(sessions, *(part(place, NEEDS[place]) for place in places))
    parts, session = built.parts, built.session
    assert parts.training is not None
    wrapped = parts.model
    assert isinstance(wrapped, nn.Sequential) and wrapped[0] is built.model
    found: dict[Place, Any] = {
        "optimizer": parts.training.optimizer,
        "schedule": parts.training._schedule,
        "data": session._policy,
        "objective": session._objective,
        "parameterization": parts.parameterization,
        "averaging": parts.averaging,
    }
    available = {"session": session, "model": wrapped, "optimizer": parts.training.optimizer}
    for place in places:
        assert type(found[place]) is CLASSES[place]
        expected = {need: available[need] for need in NEEDS[place]}
        if place == "parameterization":
            expected["model"] = built.model  # it is there to wrap it
        assert found[place].given == expected, place
    assert session.horizon_examples == built.spec.recipe.horizon_examples // 4
    parts.training.step()
    assert built.bench.counters.examples == 2


def test_a_procedure_replaces_the_loop_and_keeps_the_rest(sessions: Sessions) -> None:
    built = Built(sessions, part("procedure", NEEDS["procedure"]), part("optimizer"))
    assert built.parts.training is None
    procedure = built.parts.procedure
    assert isinstance(procedure, AProcedure)
    assert procedure.given == {"session": built.session, "model": built.model}
    training = built.builder.training(built.session, built.model)
    assert isinstance(training.optimizer, AnOptimizer)
    training.step()
    assert built.bench.counters.examples == BATCH


def test_nothing_averages_beside_a_procedure(sessions: Sessions) -> None:
    with pytest.raises(DisqualifiedError, match="a procedure owns the loop"):
        Built(sessions, part("procedure"), part("averaging"))


@pytest.mark.parametrize("place", CLASSES)
def test_a_class_of_another_contract_is_disqualified_unbuilt(
    sessions: Sessions, place: Place
) -> None:
    contract = {
        "optimizer": r"torch\.optim\.Optimizer",
        "schedule": r"harness\.session\.Schedule",
        "data": r"harness\.session\.Data",
        "objective": r"harness\.session\.Objective",
        "parameterization": r"harness\.session\.Parameterization",
        "averaging": r"harness\.session\.Averaging",
        "procedure": r"harness\.session\.Procedure",
    }[place]
    with pytest.raises(
        DisqualifiedError, match=f"^my-{place}: NothingOfTheKind is no {contract}\\b"
    ):
        Built(sessions, part(place, kind=NothingOfTheKind))


@pytest.mark.parametrize("place", ["data", "objective", "parameterization", "procedure"])
def test_what_is_built_before_the_optimizer_cannot_need_it(
    sessions: Sessions, place: Place
) -> None:
    with pytest.raises(DisqualifiedError, match=f"my-{place}: the place `{place}` cannot need"):
        Built(sessions, part(place, ("optimizer",)))


def test_the_optimizer_of_a_model_is_the_latest_in_use(sessions: Sessions) -> None:
    built = Built(sessions)
    assert built.parts.training is not None
    find = built.builder.optimizer_of
    assert find(built.model) is built.parts.training.optimizer
    assert find(nn.Sequential(built.model)) is built.parts.training.optimizer
    assert find(nn.Linear(1, 1)) is None
    pilot = nn.Linear(1, 1)
    own = built.builder.training(built.session, pilot)
    assert find(pilot) is own.optimizer
    assert find(built.model) is built.parts.training.optimizer
    again = built.builder.training(built.session, built.model)
    assert find(built.model) is again.optimizer
    del again, own
    gc.collect()  # a procedure that drops a training is done with it
    assert find(built.model) is built.parts.training.optimizer and find(pilot) is None
