"""A submission's card: what it fills, its hyperparameters, its claim."""

import math
from typing import Literal

import msgspec

from harness.cards.vocabulary import (
    RESERVED_NAMES,
    Card,
    CatalogueCard,
    Closure,
    Implementation,
    Key,
    Kind,
    Name,
    Need,
    Place,
    PositiveFloat,
    PositiveInt,
    Scalar,
    Words,
    WorkloadName,
)
from harness.cards.wording import listed, not_among
from harness.errors import UsageError


class SearchRange(Card, frozen=True, kw_only=True):
    """Where a tuner looks for a hyperparameter."""

    low: float
    high: float
    scale: Literal["linear", "log"] = "linear"

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"low ({self.low}) must be less than high ({self.high})")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"a log scale starts above 0, got low {self.low}")


FROM_RECIPE = "recipe"
MAX_INTEGER = 2**63 - 1


class Hyperparameter(Card, frozen=True, kw_only=True):
    """A number or switch of a submission; `type` says how text is read.

    The default `recipe` stands for the workload's own value of that name, so that a schedule
    that is asked only for its shape keeps the reference's warm-up.
    """

    default: str
    type: Literal["float", "integer", "boolean"] = "float"
    minimum: float | None = None
    maximum: float | None = None
    search: SearchRange | None = None
    place: Place | None = None  # whose it is where a card fills several; None: its own

    def __post_init__(self) -> None:
        ranges = (self.minimum, self.maximum, self.search)
        if self.type == "boolean" and any(given is not None for given in ranges):
            raise ValueError("a boolean has no minimum, maximum or search range")
        low, high = self._limits
        if not low <= high:
            raise ValueError(f"minimum ({low:.15g}) must not be more than maximum ({high:.15g})")
        if self.search is not None and not low <= self.search.low < self.search.high <= high:
            raise ValueError(f"the search range must be {within(low, high)}")
        if self.default == FROM_RECIPE:
            return
        try:
            self.convert(self.default)
        except ValueError as error:
            raise ValueError(f"default {error}") from None

    @property
    def _limits(self) -> tuple[float, float]:
        low = -math.inf if self.minimum is None else self.minimum
        high = math.inf if self.maximum is None else self.maximum
        return low, high

    def convert(self, text: str) -> Scalar:
        """Return `text` as a value of this hyperparameter.

        Raises:
            ValueError: what it takes instead, to be put behind its name.
        """
        try:
            value: Scalar = msgspec.convert(text, type=_TYPES[self.type], strict=False)
        except (msgspec.ValidationError, UnicodeEncodeError):  # the latter: half a surrogate pair
            raise ValueError(f"takes {_TYPE_WORDS[self.type]}, not {text!r}") from None
        if isinstance(value, bool | str):
            return value
        low, high = self._limits
        if self.type == "integer":  # what a message can carry
            low, high = max(low, -MAX_INTEGER), min(high, MAX_INTEGER)
        if not math.isfinite(value) or not low <= value <= high:
            raise ValueError(f"must be {within(low, high)}, not {text}")
        return value

    def read(self, name: str, text: str) -> Scalar:
        """Return `text` as a value of this hyperparameter, which an error calls `name`.

        Raises:
            UsageError: the text is of another type or outside the legal range.
        """
        try:
            return self.convert(text)
        except ValueError as error:
            raise UsageError(f"{name} {error}. Default: {self.default}.") from None


_TYPES: dict[str, type[float | int | bool]] = {"float": float, "integer": int, "boolean": bool}
_TYPE_WORDS = {"float": "a number", "integer": "a whole number", "boolean": "true or false"}


def within(low: float, high: float) -> str:
    """Return a range in words; an infinite end is open."""
    if math.isinf(low) and math.isinf(high):
        return "finite"
    if math.isinf(high):
        return f"at least {low:.15g}"
    if math.isinf(low):
        return f"at most {high:.15g}"
    return f"in [{low:.15g}, {high:.15g}]"


class TunedPoint(Card, frozen=True, kw_only=True):
    """A hyperparameter point found on one workload version, and the trials it cost."""

    version: PositiveInt
    point: dict[Key, str]
    trials: PositiveInt
    source: Words


class Paper(Card, frozen=True, kw_only=True):
    """Where the method was published."""

    title: Words
    authors: Words
    year: PositiveInt
    url: Words


class Claim(Card, frozen=True, kw_only=True):
    """What the paper claims, in a form that can be measured: time ÷ baseline's time ≤ ratio."""

    metric: Literal["submission_time", "steps", "examples", "model_passes", "peak_memory"]
    baseline: Name
    workload: WorkloadName
    ratio: PositiveFloat
    statement: Words
    source: Words


class Filling(Card, frozen=True, kw_only=True):
    """A class for one more place of the recipe, in the card's own file or one beside it."""

    implementation: Implementation
    needs: tuple[Need, ...] = ()


class SubmissionCard(CatalogueCard, frozen=True, kw_only=True):
    """A submission: the places it fills, its hyperparameters, its claim.

    `closure` says what the optimizer's `step(closure)` makes the closure do; `needs` what the
    constructor gets beside the hyperparameters; `also` which further places the card fills;
    `ignores` which places a procedure has no use for, whose loop never asks them.
    """

    name: Name
    title: Words
    kind: Kind
    closure: Closure = "none"
    needs: tuple[Need, ...] = ()
    also: dict[Place, Filling] = msgspec.field(default_factory=dict)
    ignores: tuple[Place, ...] = ()
    paper: Paper | None = None
    hyperparameters: dict[Key, Hyperparameter] = msgspec.field(default_factory=dict)
    tuned: dict[WorkloadName, TunedPoint] = msgspec.field(default_factory=dict)
    claim: Claim | None = None

    def __post_init__(self) -> None:
        if self.name in RESERVED_NAMES or self.name.endswith(".py"):
            raise ValueError(
                f"the name {self.name!r} is taken: {listed(sorted(RESERVED_NAMES))} address "
                "places, and `.py` ends the name of a file"
            )
        self._check_places()
        for workload, tuned in self.tuned.items():
            for name, text in tuned.point.items():
                if name not in self.hyperparameters:
                    raise ValueError(
                        f"tuned.{workload}.point {not_among(name, self.hyperparameters)}"
                    )
                try:
                    self.hyperparameters[name].convert(text)
                except ValueError as error:
                    raise ValueError(f"tuned.{workload}.point.{name} {error}") from None

    @property
    def place(self) -> Place:
        """The place that the card's own implementation fills."""
        return "optimizer" if self.kind == "zeroth-order" else self.kind

    @property
    def fillings(self) -> dict[Place, Filling]:
        """Every place with what fills it, the card's own first."""
        own = Filling(implementation=self.implementation, needs=self.needs)
        return {self.place: own} | self.also

    def _check_places(self) -> None:
        if self.place in self.also:
            raise ValueError(f"also: the place {self.place!r} is the card's own already")
        if self.ignores and "procedure" not in self.fillings:
            raise ValueError("ignores: only a procedure owns the loop and can ignore a place")
        if both := sorted(self.fillings.keys() & set(self.ignores)):
            raise ValueError(f"ignores: the card itself fills {listed(both)}")
        if self.kind == "zeroth-order" and self.closure != "forward":
            raise ValueError("closure: a zeroth-order submission has closure `forward`")
        if self.closure != "none" and "optimizer" not in self.fillings:
            raise ValueError("closure: only a card that fills the place `optimizer` has one")
        for place, filling in self.fillings.items():
            if place == "optimizer" and "optimizer" in filling.needs:
                raise ValueError("needs: an optimizer cannot need `optimizer`, itself")
        for name, hyperparameter in self.hyperparameters.items():
            if hyperparameter.place is not None and hyperparameter.place not in self.fillings:
                raise ValueError(
                    f"hyperparameters.{name}.place: the card does not fill "
                    f"{hyperparameter.place!r}; it fills {listed(list(self.fillings))}"
                )
