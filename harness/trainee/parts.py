"""Builds the recipe's parts: the submission's where it has some, the reference's elsewhere."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import nn

from harness.cards import Place
from harness.session import (
    Averaging,
    Data,
    Objective,
    Parameterization,
    Procedure,
    Schedule,
    Session,
    SetsHorizon,
)
from harness.spec import Part, RunSpec
from harness.trainee.parameter_roles import parameter_groups
from harness.trainee.reference_training import RecipeTraining, UniformShuffling, WarmupCosine
from harness.trainee.submission_loading import DisqualifiedError, load_class
from harness.workload import Workload

T = TypeVar("T")


@dataclass(kw_only=True, slots=True)
class Parts:
    """What a run trains with."""

    model: nn.Module
    parameterization: Parameterization | None
    averaging: Averaging | None
    procedure: Procedure | None
    training: RecipeTraining | None  # None where a procedure owns the loop


class PartsBuilder:
    """Imports the submission's classes when it is made, and builds them later, on the clock."""

    def __init__(self, spec: RunSpec, workload: Workload) -> None:
        self._spec = spec
        self._workload = workload
        self._classes: dict[Place, type] = {
            part.place: load_class(part) for part in spec.recipe.parts
        }

    def build(self, session: Session, model: nn.Module, order: torch.Generator) -> Parts:
        """Build every part for `model` and tell the session of data policy and objective.

        Raises:
            DisqualifiedError: a class is not what its place asks for.
        """
        parameterization = self._make("parameterization", Parameterization, session, model)
        if parameterization is not None:
            model = parameterization.wrap(model)
        policy = self._make("data", Data, session, model) or UniformShuffling(session, order)
        if isinstance(policy, SetsHorizon):
            session.horizon_examples = policy.horizon_examples(session.horizon_examples)
        session.follow(policy, self._make("objective", Objective, session, model))
        procedure = self._make("procedure", Procedure, session, model)
        training = None if procedure is not None else self.training(session, model)
        averaging = None
        if training is not None:
            averaging = self._make("averaging", Averaging, session, model, training.optimizer)
        elif "averaging" in self._classes:
            raise DisqualifiedError("a procedure owns the loop, so nothing can average beside it")
        return Parts(
            model=model,
            parameterization=parameterization,
            averaging=averaging,
            procedure=procedure,
            training=training,
        )

    def training(self, session: Session, model: nn.Module) -> RecipeTraining:
        """Build the recipe's optimizer and schedule around a model."""
        recipe = self._spec.recipe
        part = recipe.part("optimizer")
        assert part is not None, "every recipe names an optimizer"
        groups = parameter_groups(model, self._workload.head_parameters, recipe.decay_exempt_roles)
        optimizer = self._classes["optimizer"](
            groups, **part.hyperparameters, **_needs(part, session, model, None)
        )
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise DisqualifiedError(f"{part.name}: {part.class_name} is no torch.optim.Optimizer")
        schedule = self._make("schedule", Schedule, session, model, optimizer)
        return RecipeTraining(
            session,
            model,
            optimizer=optimizer,
            closure=part.closure,
            schedule=schedule or WarmupCosine(recipe.warmup_fraction, recipe.final_lr_fraction),
            clip_norm=recipe.clip_norm,
            batch_size=recipe.batch_size,
        )

    def _make(
        self,
        place: Place,
        contract: Callable[..., T],
        session: Session,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> T | None:
        part = self._spec.recipe.part(place)
        if part is None:
            return None
        made = self._classes[place](
            **part.hyperparameters, **_needs(part, session, model, optimizer)
        )
        # mypy takes no abstract class where a `type` is asked for, hence the cast.
        if not isinstance(made, cast(type[T], contract)):
            raise DisqualifiedError(
                f"{part.name}: {part.class_name} is no harness.session.{contract.__name__}, "
                f"which the place `{place}` asks for"
            )
        return made


def _needs(
    part: Part, session: Session, model: nn.Module, optimizer: torch.optim.Optimizer | None
) -> dict[str, object]:
    available: dict[str, object] = {"session": session, "model": model, "optimizer": optimizer}
    return {need: available[need] for need in part.needs}
