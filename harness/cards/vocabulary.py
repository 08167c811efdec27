"""The vocabulary of cards: constrained words and numbers, and what every card is."""

import typing
from typing import Annotated, Literal

import msgspec

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
