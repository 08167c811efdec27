"""Cards: the YAML files that freeze a workload and describe a submission.

YAML is read without implicit types (`no` stays a word, `10:30` stays text); the field's
declared type decides. Unknown and repeated keys are refused.
"""

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import yaml

from harness.errors import UsageError

Scalar = float | int | bool | str

PositiveInt = Annotated[int, msgspec.Meta(gt=0)]
PositiveFloat = Annotated[float, msgspec.Meta(gt=0)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
Implementation = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_]\w*:[A-Za-z_]\w*$")]

Tier = Literal["embedded", "embedded-slow", "real"]
Role = Literal["matrix", "conv", "embedding", "head", "norm", "bias"]
Precision = Literal["float32", "float64"]


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What both kinds of card share: the configuration of msgspec."""


class Metric(Card):
    """The metric that decides, its target, and the unit people read it in."""

    name: str
    direction: Literal["maximise", "minimise"]
    target: float

    def meets(self, value: float) -> bool:
        """Return whether `value` is as good as the target; NaN never is."""
        return value >= self.target if self.direction == "maximise" else value <= self.target

    def better(self, value: float, other: float | None) -> bool:
        """Return whether `value` is a number and better than `other`."""
        if math.isnan(value):
            return False
        if other is None:
            return True
        return value > other if self.direction == "maximise" else value < other


class DataDescription(Card):
    """Where the data comes from and what it must hash to (harness.prepared_data)."""

    source: str
    sha256: dict[Literal["training", "evaluation", "test"], Sha256]
    training_examples: PositiveInt
    evaluation_examples: PositiveInt
    test_examples: PositiveInt


class ReferenceRecipe(Card):
    """The recipe that a submission changes in part: AdamW, warm-up and cosine, shuffling."""

    optimizer: Name
    hyperparameters: dict[str, float]
    warmup_fraction: Fraction
    final_lr_fraction: Fraction
    decay_exempt_roles: tuple[Role, ...] = ()
    clip_norm: PositiveFloat | None = None
    label_smoothing: Fraction = 0.0


class Noise(Card):
    """Measured spread of the reference recipe."""

    runs: PositiveInt
    reached: Annotated[int, msgspec.Meta(ge=0)]
    metric_sigma: PositiveFloat
    time_cv: PositiveFloat
    passes_cv: PositiveFloat
    false_reach_chance: Fraction
    evaluation_share: Fraction


FIGURES_WITH_EVIDENCE = frozenset(
    {"target", "grid", "budget", "horizon", "recipe", "noise", "drift_bound", "reference_seconds"}
)


class WorkloadCard(Card):
    """A frozen, versioned workload; a changed figure is a new version."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_-]+/[a-z0-9_-]+$")]
    version: PositiveInt
    title: str
    implementation: Implementation
    tier: Tier
    modality: str
    metric: Metric
    data: DataDescription
    batch_size: PositiveInt
    precision: Precision
    grid_model_passes: PositiveInt
    horizon_examples: PositiveInt
    budget_paces: PositiveFloat
    drift_bound: PositiveFloat
    recipe: ReferenceRecipe
    noise: Noise
    parameters: PositiveInt
    reference_seconds: PositiveFloat
    evidence: dict[str, str]

    def __post_init__(self) -> None:
        missing = FIGURES_WITH_EVIDENCE - self.evidence.keys()
        if missing:
            raise ValueError(
                "evidence must name the measurement behind "
                + ", ".join(f"`{figure}`" for figure in sorted(missing))
            )

    @property
    def family(self) -> str:
        """The part of the name before the slash."""
        return self.name.partition("/")[0]

    @property
    def passes_per_reference_step(self) -> int:
        """Model passes of one reference step: a forward (1) and a backward (2) an example."""
        return 3 * self.batch_size


class SearchRange(Card):
    """Where a tuner looks for a hyperparameter."""

    low: float
    high: float
    scale: Literal["linear", "log"] = "linear"

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"search: low ({self.low}) must be less than high ({self.high})")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"search: a log scale starts above 0, got low {self.low}")


class Hyperparameter(Card):
    """A number or switch of a submission; `type` says how text is read."""

    default: str
    type: Literal["float", "integer", "boolean"] = "float"
    minimum: float | None = None
    maximum: float | None = None
    search: SearchRange | None = None

    def read(self, name: str, text: str) -> Scalar:
        """Return `text` as a value of this hyperparameter.

        Raises:
            UsageError: the text is of another type or outside the legal range.
        """
        try:
            value = msgspec.convert(text, type=_TYPES[self.type], strict=False)
        except msgspec.ValidationError:
            raise UsageError(
                f"{name} takes {_TYPE_WORDS[self.type]}, not {text!r}. Default: {self.default}."
            ) from None
        if isinstance(value, bool):
            return value
        low = -math.inf if self.minimum is None else self.minimum
        high = math.inf if self.maximum is None else self.maximum
        if not math.isfinite(value) or not low <= value <= high:
            raise UsageError(
                f"{name} must lie in [{low:g}, {high:g}], not {text}. Default: {self.default}."
            )
        return value


_TYPES: dict[str, type] = {"float": float, "integer": int, "boolean": bool}
_TYPE_WORDS = {"float": "a number", "integer": "a whole number", "boolean": "true or false"}


class TunedPoint(Card):
    """A hyperparameter point found on one workload version, and the trials it cost."""

    version: PositiveInt
    point: dict[str, str]
    trials: PositiveInt
    source: str


class Paper(Card):
    """Where the method was published."""

    title: str
    authors: str
    year: int
    url: str


class Claim(Card):
    """What the paper claims, in a form that can be measured: time ÷ baseline's time ≤ ratio."""

    metric: Literal["submission_time", "steps", "examples", "model_passes", "peak_memory"]
    baseline: Name
    workload: str
    ratio: PositiveFloat
    statement: str
    source: str


class SubmissionCard(Card):
    """A submission: the place it fills, its hyperparameters, its claim."""

    name: Name
    title: str
    kind: Literal["optimizer"]
    implementation: Implementation
    paper: Paper | None = None
    hyperparameters: dict[str, Hyperparameter] = {}
    tuned: dict[str, TunedPoint] = {}
    claim: Claim | None = None

    def __post_init__(self) -> None:
        for name, hyperparameter in self.hyperparameters.items():
            self._check(f"hyperparameters.{name}.default", hyperparameter, hyperparameter.default)
        for workload, tuned in self.tuned.items():
            for name, text in tuned.point.items():
                if name not in self.hyperparameters:
                    raise ValueError(
                        f"tuned.{workload}.point names `{name}`, which is none of the "
                        f"hyperparameters {', '.join(sorted(self.hyperparameters))}"
                    )
                self._check(f"tuned.{workload}.point.{name}", self.hyperparameters[name], text)

    @staticmethod
    def _check(name: str, hyperparameter: Hyperparameter, text: str) -> None:
        try:
            hyperparameter.read(name, text)
        except UsageError as error:
            raise ValueError(str(error)) from None


C = TypeVar("C", bound=Card)


class _WordsOnlyLoader(yaml.BaseLoader):
    """Every scalar is text, and a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise yaml.constructor.ConstructorError(
                None, None, f"a mapping is needed here, not a {node.id}", node.start_mark
            )
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a plain word", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    # BaseLoader expands aliases; a card of a few hundred bytes could then fill the memory.
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.constructor.ConstructorError(
                None, None, "aliases (*name) are not allowed on a card", event.start_mark
            )
        return super().compose_node(parent, index)


def read_card(path: Path, kind: type[C]) -> C:
    """Return the card in `path`.

    Raises:
        UsageError: the file is unreadable, no YAML, or no valid card; names file and field.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The card {path} cannot be read: {error}.") from None
    return parse_card(text, kind, str(path))


def parse_card(text: str, kind: type[C], origin: str) -> C:
    """Return the card in `text`; `origin` is what an error calls it. Raises as `read_card`."""
    try:
        fields = yaml.load(text, Loader=_WordsOnlyLoader)  # noqa: S506 - builds only text, lists and dicts
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        where = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        line = f" at line {where.line + 1}, column {where.column + 1}" if where else ""
        raise UsageError(f"The card {origin} is not valid YAML{line}: {problem}.") from None
    if not isinstance(fields, dict):
        raise UsageError(f"The card {origin} must be a mapping of keys to values.")
    try:
        card = msgspec.convert(fields, type=kind, strict=False)
        _refuse_not_finite(msgspec.to_builtins(card), "$")
        return card
    except msgspec.ValidationError as error:
        problem, _, where = str(error).partition(" - at ")
        field = where.strip("`").removeprefix("$.")
        place = f", field `{field}`" if field and field != "$" else ""
        legal = ""
        if match := re.search(r"unknown field `(.+)`", problem):
            legal = f" Remove {match[1]!r} or correct its spelling."
            if not place:
                legal += f" Known fields: {', '.join(kind.__struct_fields__)}."
        raise UsageError(f"The card {origin} is invalid{place}: {problem}.{legal}") from None


def _refuse_not_finite(value: object, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise msgspec.ValidationError(f"a finite number is needed, not {value} - at `{where}`")
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_not_finite(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_not_finite(item, where)
