"""What a sweep is to run: a YAML file under review, or the same from the command line."""

from pathlib import Path
from typing import Annotated, Any

import msgspec

from harness.cards import Card, Key, PositiveFloat, PositiveInt, Words, parse_struct, read_mapping
from harness.counters import MAX_RANKS
from harness.errors import UsageError
from harness.sweeps.rulesets import ruleset_named

NonNegativeInt = Annotated[int, msgspec.Meta(ge=0)]


class Entrant(Card, frozen=True, kw_only=True):
    """A submission with its `--set`s, and under external tuning perhaps its list of points."""

    submission: Words
    set: dict[Words, Words] = msgspec.field(default_factory=dict)
    points: tuple[dict[Key, Words], ...] = ()


class SweepFile(Card, frozen=True, kw_only=True):
    """Every submission on every workload, either with some seeds or by a ruleset."""

    submissions: tuple[Entrant, ...]
    workloads: tuple[Words, ...]
    seeds: PositiveInt | None = None
    first_seed: NonNegativeInt = 0
    ruleset: Words | None = None
    studies: PositiveInt | None = None
    trials: PositiveInt | None = None
    points_seed: NonNegativeInt = 0  # of the points drawn under external tuning
    budget_paces: PositiveFloat | None = None
    nproc: Annotated[int, msgspec.Meta(ge=1, le=MAX_RANKS)] = 1  # processes a run

    def __post_init__(self) -> None:
        if not self.submissions or not self.workloads:
            raise ValueError("submissions and workloads need at least one entry each")
        if self.ruleset is None:
            if self.studies or self.trials:
                raise ValueError("studies and trials belong to a ruleset: name one")
            if any(entrant.points for entrant in self.submissions):
                raise ValueError("points are tried under external tuning: `ruleset: external`")
            return
        if self.seeds is not None:
            raise ValueError("seeds count runs without a ruleset; a ruleset has studies and trials")
        try:
            ruleset = ruleset_named(self.ruleset)
        except UsageError as error:
            raise ValueError(str(error).rstrip(".")) from None
        if ruleset.tuning == "self" and (self.trials or 1) > 1:
            raise ValueError("trials: under self-tuning a study is one run")
        if ruleset.tuning == "self" and any(entrant.points for entrant in self.submissions):
            raise ValueError("points: under self-tuning every submission has one setting")


def read_sweep_file(path: Path) -> SweepFile:
    """Return the sweep in a file.

    Raises:
        UsageError: it is unreadable, no YAML, or no valid sweep; names the field.
    """
    return parse_struct(
        _entrants_spelt_out(read_mapping(path, "sweep")), SweepFile, f"sweep {path}"
    )


def _entrants_spelt_out(fields: dict[str, Any]) -> dict[str, Any]:
    """A bare name among the submissions is an entrant with nothing else to say."""
    entrants = fields.get("submissions")
    if not isinstance(entrants, list):
        return fields
    spelt = [{"submission": one} if isinstance(one, str) else one for one in entrants]
    return fields | {"submissions": spelt}
