"""Cards: the YAML files that freeze a workload and describe a submission.

YAML is read without implicit types (`no` stays a word, `10:30` stays text); the field's
declared type decides. Unknown and repeated keys, tags, anchors and aliases are refused.
"""

import functools
import math
import re
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import yaml

from harness.errors import UsageError, did_you_mean

Scalar = float | int | bool | str

# `\Z`, since `$` lets a final line break through. The description stands in error messages.
PositiveInt = Annotated[int, msgspec.Meta(gt=0)]
PositiveFloat = Annotated[float, msgspec.Meta(gt=0)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Words = Annotated[str, msgspec.Meta(pattern=r"\S", description="some text")]
Sha256 = Annotated[
    str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z", description="64 hexadecimal digits")
]
Name = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[a-z0-9][a-z0-9_.-]*\Z",
        description="a name of lower-case letters, digits, `_`, `.` and `-`",
    ),
]
Key = Annotated[
    str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*\Z", description="a Python argument's name")
]
WorkloadName = Annotated[
    str, msgspec.Meta(pattern=r"^[a-z0-9_-]+/[a-z0-9_-]+\Z", description="family/data")
]
FileName = Annotated[
    str,
    msgspec.Meta(
        # No part begins with a dot, so none leads out of the folder.
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*\Z",
        description="a relative path such as folder/file.gz",
    ),
]
Url = Annotated[str, msgspec.Meta(pattern=r"^https?://\S+\Z", description="an address: https://…")]
Implementation = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[A-Za-z_]\w*:[A-Za-z_]\w*\Z",
        description="module:Class, the module being a file beside the card",
    ),
]

Tier = Literal["embedded", "embedded-slow", "real"]
SuiteName = Literal["smoke", "core"]  # the suites that a card chooses (harness.suites)
Role = Literal["matrix", "conv", "embedding", "head", "norm", "bias"]
Precision = Literal["float32", "float64"]
SplitName = Literal["training", "evaluation", "test"]

Place = Literal[
    "optimizer", "schedule", "data", "objective", "parameterization", "averaging", "procedure"
]
Kind = Literal[
    "optimizer",
    "schedule",
    "data",
    "zeroth-order",
    "objective",
    "parameterization",
    "averaging",
    "procedure",
]
Closure = Literal["none", "forward", "backward", "graph"]
Need = Literal["session", "model", "optimizer"]
PLACES: tuple[Place, ...] = typing.get_args(Place)

# `--set recipe.…` addresses the reference recipe, `--set PLACE.…` whatever fills the place.
RESERVED_NAMES = frozenset({"recipe", *PLACES})


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mapping on a card: the configuration of msgspec."""


class CatalogueCard(Card, frozen=True, kw_only=True):
    """What a workload and a submission share: a name and the code beside the card."""

    name: str
    implementation: Implementation


OUT_OF_REACH = 1e9  # a target that no metric meets; JSON knows no infinity


class ModelSettings(Card, frozen=True, kw_only=True):
    """What a card may choose of a family's model; a family's struct adds its choices.

    Each has a type (a `Literal` for words) and a default, the one of the family's main card.
    """


class Metric(Card, frozen=True, kw_only=True):
    """The metric that decides, its target, and the unit people read it in."""

    name: Words
    direction: Literal["maximise", "minimise"]
    target: float

    @property
    def out_of_reach(self) -> "Metric":
        """The same metric with a target that nothing meets: a run for its curve alone."""
        target = OUT_OF_REACH if self.direction == "maximise" else -OUT_OF_REACH
        return Metric(name=self.name, direction=self.direction, target=target)

    @property
    def within_reach(self) -> bool:
        """Whether the target is one to run for."""
        return abs(self.target) < OUT_OF_REACH

    def meets(self, value: float) -> bool:
        """Return whether `value` is as good as the target; what is not finite never is."""
        if not math.isfinite(value):
            return False
        return value >= self.target if self.direction == "maximise" else value <= self.target

    def better(self, value: float, other: float | None) -> bool:
        """Return whether `value` is finite, and better than `other` or `other` is not finite."""
        if not math.isfinite(value):
            return False
        if other is None or not math.isfinite(other):
            return True
        return value > other if self.direction == "maximise" else value < other


class DataFile(Card, frozen=True, kw_only=True):
    """An official file that a workload is prepared from (harness.data_files)."""

    name: FileName  # below the data folder
    bytes: PositiveInt
    sha256: Sha256
    url: Url | None = None
    how: Words | None = None  # where there is no single official file: how to come by it

    def __post_init__(self) -> None:
        if (self.url is None) == (self.how is None):
            raise ValueError(f"{self.name} needs a `url`, or a `how` that tells where to get it")


# Defaults stay out of the stored form, so that evidence of cards without files keeps its
# fingerprint.
class DataDescription(Card, frozen=True, kw_only=True, omit_defaults=True):
    """Where the data comes from and what it must hash to (harness.prepared_data)."""

    source: Words
    sha256: dict[SplitName, Sha256]
    training_examples: PositiveInt
    evaluation_examples: PositiveInt
    test_examples: PositiveInt
    files: tuple[DataFile, ...] = ()  # what the user has to have: tier `real`
    licence: Words | None = None

    def __post_init__(self) -> None:
        missing = [split for split in typing.get_args(SplitName) if split not in self.sha256]
        if missing:
            raise ValueError(f"sha256 must also name {_listed(missing)}")
        if self.files and self.licence is None:
            raise ValueError("licence is missing: say under which one the files are")
        names = [file.name for file in self.files]
        if len(set(names)) < len(names):
            raise ValueError("files: a name stands twice")


class ReferenceRecipe(Card, frozen=True, kw_only=True):
    """The recipe that a submission changes in part: AdamW, warm-up and cosine, shuffling."""

    optimizer: Name
    hyperparameters: dict[Key, float]
    warmup_fraction: Fraction
    final_lr_fraction: Fraction
    decay_exempt_roles: tuple[Role, ...] = ()
    clip_norm: PositiveFloat | None = None
    label_smoothing: Fraction = 0.0


class Noise(Card, frozen=True, kw_only=True):
    """Measured spread of the reference recipe; what was not measured is left out."""

    runs: PositiveInt
    reached: Annotated[int, msgspec.Meta(ge=0)]
    metric_sigma: PositiveFloat | None = None
    time_cv: PositiveFloat | None = None
    passes_cv: PositiveFloat | None = None
    false_reach_chance: Fraction | None = None
    evaluation_share: Fraction | None = None

    def __post_init__(self) -> None:
        if self.reached > self.runs:
            raise ValueError(f"{self.reached} of {self.runs} runs cannot have reached the target")


FIGURES_WITH_EVIDENCE = frozenset(
    {"target", "grid", "budget", "horizon", "recipe", "noise", "drift_bound", "reference_seconds"}
)


class WorkloadCard(CatalogueCard, frozen=True, kw_only=True):
    """A frozen, versioned workload; a changed figure is a new version."""

    name: WorkloadName
    version: PositiveInt
    title: Words
    tier: Tier
    suites: tuple[SuiteName, ...] = ()
    variant_of: WorkloadName | None = None  # held out: the same task with a model changed in part
    modality: Words
    metric: Metric
    data: DataDescription
    model: dict[Key, Words] = {}  # choices of the family's `ModelSettings`
    target_groups: tuple[Annotated[int, msgspec.Meta(ge=0)], ...] = ()  # what the metric asks for
    batch_size: PositiveInt
    precision: Precision
    grid_model_passes: PositiveInt
    horizon_examples: PositiveInt
    budget_paces: PositiveFloat
    drift_bound: PositiveFloat
    recipe: ReferenceRecipe
    noise: Noise
    parameters: PositiveInt
    pretrained: bool = False  # every run starts from the same trained weights
    reference_seconds: PositiveFloat
    evidence: dict[str, Words]

    def __post_init__(self) -> None:
        if self.variant_of is not None and self.suites:
            raise ValueError("suites: a held-out variant belongs to none")
        if (self.tier == "real") != bool(self.data.files):
            raise ValueError("data.files: tier `real` has at least one, the other tiers none")
        figures = FIGURES_WITH_EVIDENCE | set(self.__struct_fields__)
        for figure in self.evidence:
            if figure not in figures:
                raise ValueError(f"evidence {_not_among(figure, figures)}")
        missing = FIGURES_WITH_EVIDENCE - self.evidence.keys()
        if missing:
            raise ValueError(
                f"evidence must name the measurement behind {_listed(sorted(missing))}"
            )
        if self.batch_size > self.data.training_examples:
            raise ValueError(
                f"batch_size ({self.batch_size}) is more than the "
                f"{self.data.training_examples} training examples"
            )

    @property
    def family(self) -> str:
        """The part of the name before the slash."""
        return self.name.partition("/")[0]

    @property
    def passes_per_reference_step(self) -> int:
        """Model passes of one reference step: a forward (1) and a backward (2) an example."""
        return 3 * self.batch_size


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
    also: dict[Place, Filling] = {}
    ignores: tuple[Place, ...] = ()
    paper: Paper | None = None
    hyperparameters: dict[Key, Hyperparameter] = {}
    tuned: dict[WorkloadName, TunedPoint] = {}
    claim: Claim | None = None

    def __post_init__(self) -> None:
        if self.name in RESERVED_NAMES or self.name.endswith(".py"):
            raise ValueError(
                f"the name {self.name!r} is taken: {_listed(sorted(RESERVED_NAMES))} address "
                "places, and `.py` ends the name of a file"
            )
        self._check_places()
        for workload, tuned in self.tuned.items():
            for name, text in tuned.point.items():
                if name not in self.hyperparameters:
                    raise ValueError(
                        f"tuned.{workload}.point {_not_among(name, self.hyperparameters)}"
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
            raise ValueError(f"ignores: the card itself fills {_listed(both)}")
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
                    f"{hyperparameter.place!r}; it fills {_listed(list(self.fillings))}"
                )


C = TypeVar("C", bound=CatalogueCard)
M = TypeVar("M", bound=ModelSettings)
T = TypeVar("T", bound=Card)

MAX_CHARACTERS = 100_000  # the largest card has a few thousand; the reader takes seconds a megabyte
MAX_DEPTH = 20
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class _WordsOnlyLoader(yaml.BaseLoader):
    """Every scalar is text; a repeated key, a tag, an anchor or an alias is an error."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _yaml_error("a key must be a plain word", key)
            if key.value in seen:
                raise _yaml_error(f"the key {key.value!r} stands twice", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        # BaseLoader expands aliases; a card of a few hundred bytes could then fill the memory.
        if getattr(event, "anchor", None) is not None:
            raise _yaml_error("anchors (&name) and aliases (*name) are not allowed", event)
        # BaseLoader would ignore a tag, and with it what its writer meant.
        if getattr(event, "tag", None) is not None:
            raise _yaml_error("tags (!name) are not allowed; the field's type decides", event)
        if self._depth == MAX_DEPTH:
            raise _yaml_error(f"nested more than {MAX_DEPTH} deep", event)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(node, yaml.ScalarNode) and _UNPRINTABLE.search(node.value):
            raise _yaml_error("control characters and lone surrogates are not allowed", node)
        return node


def _yaml_error(problem: str, at: Any) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, at.start_mark)


def read_card(path: Path, kind: type[C]) -> C:
    """Return the card in `path`; a variant takes what it leaves out from the card it varies.

    Raises:
        UsageError: the file is unreadable, no YAML, or no valid card; names file and field.
    """
    fields = read_mapping(path, "card")
    if kind is WorkloadCard and "variant_of" in fields:
        fields = _inherited(path, fields) | fields
    return parse_struct(fields, kind, f"card {path}")


def parse_card(text: str, kind: type[C], origin: str) -> C:
    """Return the card in `text`; `origin` is what an error calls it. Raises as `read_card`."""
    return parse_struct(_fields_of(text, f"card {origin}"), kind, f"card {origin}")


def read_model_settings(card: WorkloadCard, kind: type[M]) -> M:
    """Return the card's `model:` as a struct of choices.

    Raises:
        UsageError: a choice or a value that `kind` does not have.
    """
    return parse_struct(card.model, kind, f"model of {card.name}")


def _inherited(path: Path, fields: dict[str, Any]) -> dict[str, Any]:
    """Return what a variant takes from its base, which stands beside it.

    Not the evidence: the base's measurements say nothing of the variant.
    """
    family, _, data = str(fields["variant_of"]).partition("/")
    base_path = path.with_name(f"{data}.yaml")
    if not data or path.parent.name != family or base_path == path or not base_path.is_file():
        raise UsageError(
            f"The card {path} is invalid, field `variant_of`: must name a workload of its own "
            f"family whose card stands beside it, not {fields['variant_of']!r}."
        )
    base = read_mapping(base_path, "card")
    if "variant_of" in base:
        raise UsageError(
            f"The card {path} is invalid, field `variant_of`: {fields['variant_of']} is itself a "
            f"variant. Name {base['variant_of']!r}."
        )
    return {name: value for name, value in base.items() if name not in ("suites", "evidence")}


def read_mapping(path: Path, noun: str) -> dict[str, Any]:
    """Return the YAML mapping in a file, every value a text; an error calls it by `noun`.

    Raises:
        UsageError: the file is unreadable or no YAML mapping.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_CHARACTERS + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The {noun} {path} cannot be read: {error}.") from None
    return _fields_of(text, f"{noun} {path}")


def _fields_of(text: str, origin: str) -> dict[str, Any]:
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"The {origin} has more than {MAX_CHARACTERS} characters. Shorten it.")
    try:
        fields = yaml.load(text, Loader=_WordsOnlyLoader)  # noqa: S506 - builds only text, lists and dicts
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last two: "\UFFFFFFFF"
        where = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        line = f" at line {where.line + 1}, column {where.column + 1}" if where else ""
        raise UsageError(f"The {origin} is not valid YAML{line}: {problem}.") from None
    if not isinstance(fields, dict):
        raise UsageError(f"The {origin} must be a mapping of keys to values.")
    return fields


def parse_struct(fields: dict[str, Any], kind: type[T], origin: str) -> T:
    """Return a mapping of texts as a struct; `origin` is what an error calls it.

    Raises:
        UsageError: a key or value that the struct does not have; names the field.
    """
    try:
        card = msgspec.convert(fields, type=kind, strict=False)
    except msgspec.ValidationError:
        fault = _fault(fields, kind, ())
        assert fault is not None
    else:
        fault = _not_finite(msgspec.to_builtins(card), ())
        if fault is None:
            return card
    path, problem = fault
    place = f", field `{'.'.join(path)}`" if path else ""
    raise UsageError(f"The {origin} is invalid{place}: {problem}.")


_Path = tuple[str, ...]


def _fault(value: object, kind: Any, path: _Path) -> tuple[_Path, str] | None:
    """Return the innermost path at which `value` is no `kind`, and what is wrong there.

    msgspec's own message leaves out the keys of mappings, the known fields and the legal words.
    """
    try:
        msgspec.convert(value, type=kind, strict=False)
    except msgspec.ValidationError as error:
        problem = str(error)
    else:
        return None
    bare, description = _bare(kind)
    fields = _fields(bare)
    for key in value if fields and isinstance(value, dict) else ():
        if key not in fields:
            hint = did_you_mean(key, fields)
            return (*path, key), f"unknown. {hint}Remove it or use one of {_listed(fields)}"
    for key, child, child_kind in _children(value, bare):
        if fault := _fault(child, child_kind, (*path, key)):
            return fault
    return path, _in_words(problem, value, bare, description)


def _bare(kind: Any) -> tuple[Any, str | None]:
    """Return `kind` without `| None` and annotations, and the description among these."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        kind = next(member for member in typing.get_args(kind) if member is not types.NoneType)
    if typing.get_origin(kind) is not Annotated:
        return kind, None
    bare, *annotations = typing.get_args(kind)
    return bare, next((a.description for a in annotations if isinstance(a, msgspec.Meta)), None)


@functools.cache
def _fields(kind: Any) -> dict[str, Any]:
    """Return the fields of a struct with their types; of anything else none."""
    if not (isinstance(kind, type) and issubclass(kind, Card)):
        return {}
    return typing.get_type_hints(kind, include_extras=True)


def _children(value: object, kind: Any) -> Iterator[tuple[str, object, Any]]:
    arguments = typing.get_args(kind)
    if isinstance(value, list) and typing.get_origin(kind) is tuple:
        for index, item in enumerate(value):
            yield str(index), item, arguments[0]
    elif isinstance(value, dict) and typing.get_origin(kind) is dict:
        for key, item in value.items():
            yield key, key, arguments[0]
            yield key, item, arguments[1]
    elif isinstance(value, dict):
        for name, child_kind in _fields(kind).items():
            if name in value:
                yield name, value[name], child_kind


_MSGSPEC_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "object": "a mapping",
    "array": "a list",
}


def _in_words(problem: str, value: object, kind: Any, description: str | None) -> str:
    shown = "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else ""
    if isinstance(value, str):
        shown = repr(value if len(value) <= 60 else f"{value[:60]}…")
    if typing.get_origin(kind) is Literal:
        words = typing.get_args(kind)
        hint = did_you_mean(value, words) if isinstance(value, str) else ""
        return f"{shown} is not legal. {hint}Legal: {_listed(words)}"
    if missing := re.search(r"missing required field `(.+?)`", problem):
        return f"the field `{missing[1]}` is missing"
    if description is not None:
        return f"must be {description}, not {shown}"
    if expected := re.fullmatch(
        r"Expected `(\w+)(?: \| null)?`(?:, got .+|( [<>]=? .+))?", problem
    ):
        word = _MSGSPEC_WORDS.get(expected[1], expected[1])
        return f"must be {word}{expected[2] or ''}, not {shown}"
    return f"{problem}: {shown}" if isinstance(value, str) else problem


def _not_finite(value: object, path: _Path) -> tuple[_Path, str] | None:
    if isinstance(value, float) and not math.isfinite(value):
        return path, f"must be finite, not {value}"
    items = value.items() if isinstance(value, dict) else ()
    return next(filter(None, (_not_finite(item, (*path, key)) for key, item in items)), None)


def _not_among(name: str, legal: Iterable[str]) -> str:
    return f"names `{name}`. {did_you_mean(name, legal)}Known: {_listed(sorted(legal)) or 'none'}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
