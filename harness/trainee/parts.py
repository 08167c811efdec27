"""Builds the recipe's parts: the submission's where it has some, the reference's elsewhere."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

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
from harness.session.ranks import Ranks
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

    def __init__(self, spec: RunSpec, workload: Workload, ranks: Ranks | None = None) -> None:
        self._spec = spec
        self._workload = workload
        self._ranks = ranks
        self._classes: dict[Place, type] = {
            part.place: load_class(part) for part in spec.recipe.parts
        }
        # Weak: a procedure's pilots are its own to forget.
        self._trainings: list[weakref.ref[RecipeTraining]] = []

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
        kind = self._classes["optimizer"]
        if not issubclass(kind, torch.optim.Optimizer):
            raise DisqualifiedError(f"{part.name}: {part.class_name} is no torch.optim.Optimizer")
        optimizer = kind(groups, **_arguments(part, session, model, None))
        if callable(switch := getattr(optimizer, "train", None)):
            switch()  # one with two sets of weights need not start with those that train
        schedule = self._make("schedule", Schedule, session, model, optimizer)
        training = RecipeTraining(
            session,
            model,
            optimizer=optimizer,
            closure=part.closure,
            schedule=schedule or WarmupCosine(recipe.warmup_fraction, recipe.final_lr_fraction),
            clip_norm=recipe.clip_norm,
            batch_size=recipe.batch_size,
            ranks=self._ranks,
        )
        self._trainings.append(weakref.ref(training))
        return training

    def optimizer_of(self, model: nn.Module) -> torch.optim.Optimizer | None:
        """Return the latest optimizer in use that trains parameters of `model`, if one does."""
        parameters = set(model.parameters())
        for reference in reversed(self._trainings):
            training = reference()
            if training is not None and any(
                not parameters.isdisjoint(group["params"])
                for group in training.optimizer.param_groups
            ):
                return training.optimizer
        return None

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
        kind = self._classes[place]
        # mypy takes no abstract class where a `type` is asked for, hence the casts.
        if not issubclass(kind, cast(type, contract)):
            raise DisqualifiedError(
                f"{part.name}: {part.class_name} is no harness.session.{contract.__name__}, "
                f"which the place `{place}` asks for"
            )
        return cast(T, kind(**_arguments(part, session, model, optimizer)))


def _arguments(
    part: Part, session: Session, model: nn.Module, optimizer: torch.optim.Optimizer | None
) -> dict[str, Any]:
    """Return what a part is built with: its hyperparameters, and what its card needs."""
    available: dict[str, object] = {"session": session, "model": model, "optimizer": optimizer}
    if optimizer is None and "optimizer" in part.needs:
        raise DisqualifiedError(
            f"{part.name}: the place `{part.place}` cannot need the optimizer, built later"
        )
    return part.hyperparameters | {need: available[need] for need in part.needs}
