"""A workload's card: everything about a workload that is frozen."""

import math
import typing
from typing import Annotated, Literal

import msgspec

from harness.cards.vocabulary import (
    Card,
    CatalogueCard,
    FileName,
    Fraction,
    Key,
    Name,
    PositiveFloat,
    PositiveInt,
    Precision,
    Role,
    Sha256,
    SplitName,
    SuiteName,
    Tier,
    Url,
    Words,
    WorkloadName,
)
from harness.cards.wording import listed, not_among

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


class FileCopy(Card, frozen=True, kw_only=True):
    """Other bytes of an official file that are in circulation and hold the same data."""

    bytes: PositiveInt
    sha256: Sha256
    differs: Words  # by what: a final newline, say


class DataFile(Card, frozen=True, kw_only=True):
    """An official file that a workload is prepared from (harness.data_files)."""

    name: FileName  # below the data folder
    bytes: PositiveInt
    sha256: Sha256
    url: Url | None = None
    how: Words | None = None  # where there is no single official file: how to come by it
    copies: tuple[FileCopy, ...] = ()  # taken as well; the prepared splits are hashed anyway

    @property
    def sizes(self) -> set[int]:
        """The sizes in bytes that it may have."""
        return {self.bytes, *(copy.bytes for copy in self.copies)}

    @property
    def hashes(self) -> set[str]:
        """The SHA-256 that it may have."""
        return {self.sha256, *(copy.sha256 for copy in self.copies)}

    def __post_init__(self) -> None:
        if (self.url is None) == (self.how is None):
            raise ValueError(f"{self.name} needs a `url`, or a `how` that tells where to get it")


# Defaults stay out of the stored form, so that evidence of cards without files keeps its
# fingerprint.
class DataDescription(Card, frozen=True, kw_only=True, omit_defaults=True):
    """Where the data comes from and what it must hash to (harness.prepared_data).

    A card whose files were never at hand leaves `sha256` out: their own hashes hold alone then.
    """

    source: Words
    sha256: dict[SplitName, Sha256] = msgspec.field(default_factory=dict)
    training_examples: PositiveInt
    evaluation_examples: PositiveInt
    test_examples: PositiveInt
    files: tuple[DataFile, ...] = ()  # what the user has to have: tier `real`
    licence: Words | None = None

    def __post_init__(self) -> None:
        missing = [split for split in typing.get_args(SplitName) if split not in self.sha256]
        if missing and (self.sha256 or not self.files):
            raise ValueError(f"sha256 must also name {listed(missing)}")
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

    runs: Annotated[int, msgspec.Meta(ge=0)]  # 0: nobody has calibrated it
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
    # Choices of the family's `ModelSettings`.
    model: dict[Key, Words] = msgspec.field(default_factory=dict)
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
                raise ValueError(f"evidence {not_among(figure, figures)}")
        missing = FIGURES_WITH_EVIDENCE - self.evidence.keys()
        if missing:
            raise ValueError(f"evidence must name the measurement behind {listed(sorted(missing))}")
        if self.batch_size > self.data.training_examples:
            raise ValueError(
                f"batch_size ({self.batch_size}) is more than the "
                f"{self.data.training_examples} training examples"
            )

    @property
    def warnings(self) -> list[str]:
        """What someone who runs on it has to know."""
        if self.noise.runs:
            return []
        return [f"nobody has calibrated {self.name}: its target is a guess (`bench calibrate`)"]

    @property
    def family(self) -> str:
        """The part of the name before the slash."""
        return self.name.partition("/")[0]

    @property
    def passes_per_reference_step(self) -> int:
        """Model passes of one reference step: a forward (1) and a backward (2) an example."""
        return 3 * self.batch_size
