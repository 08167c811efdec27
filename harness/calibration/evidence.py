"""The evidence behind a card, one JSON file a workload and version, written after every run."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import msgspec

from harness.cards import Scalar, WorkloadCard
from harness.errors import UsageError
from harness.records.record import RunDetail

_NOT_MEASURED_WITH = frozenset(
    {"title", "suites", "metric", "budget_paces", "noise", "reference_seconds", "evidence"}
)


class Point(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One evaluation of a curve: (model passes, seconds, value, seconds off the clock)."""

    model_passes: int
    elapsed_s: float  # on the clock, since the start
    value: float | None  # None: not a number
    off_clock_s: float  # export and evaluation


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """A run past its target to the end of the horizon and a little further."""

    seed: int
    pace_s: float
    drift: float | None
    tainted: list[str]
    ended: str
    points: list[Point]


class Rival(msgspec.Struct, frozen=True, kw_only=True):
    """A worse recipe's run to the target or the end of the budget."""

    name: str
    seed: int
    target: float
    budget_paces: float
    outcome: str
    normalised_time: float | None  # paces to the target
    best_value: float | None


class Evidence(msgspec.Struct, kw_only=True):
    """Everything that was run for one card."""

    workload: str
    workload_version: int
    fingerprint: str  # of the card's figures that the runs depend on
    machine_class: str
    measured: str  # date of the last run, UTC
    recipe: dict[str, Scalar]
    source_sha256: str  # of the reference's optimizer and its card
    curves: list[Curve] = []
    rivals: list[Rival] = []
    figures: dict[str, object] = {}  # what follows from the runs, for people

    def has_curve(self, seed: int) -> bool:
        """Return whether this seed's curve is there."""
        return any(curve.seed == seed for curve in self.curves)

    def rivals_at(self, target: float, budget_paces: float) -> list[Rival]:
        """Return the rivals that ran to this target with this budget or more."""
        return [
            rival
            for rival in self.rivals
            if rival.target == target and rival.budget_paces >= budget_paces
        ]


def evidence_path(folder: Path, card: WorkloadCard) -> Path:
    """Return where the evidence for a card lies."""
    return folder / f"{card.name.replace('/', '-')}-v{card.version}.json"


def fingerprint(card: WorkloadCard) -> str:
    """Return a hash of all on the card that changes what a run does before its target.

    What is empty counts as absent: a field that cards gain, and this one does not use, changes
    nothing.
    """
    fixed = {
        name: value
        for name, value in msgspec.to_builtins(card).items()
        if name not in _NOT_MEASURED_WITH and value not in (None, (), [], {})
    }
    fixed["metric"] = [card.metric.name, card.metric.direction]
    return hashlib.sha256(msgspec.json.encode(fixed, order="deterministic")).hexdigest()[:16]


def load_evidence(path: Path, card: WorkloadCard, wanted: Evidence) -> Evidence | None:
    """Return the evidence so far, None where there is none.

    Raises:
        UsageError: it is damaged, or was measured with another card, reference or machine than
            `wanted` says.
    """
    again = "Move it away, or start anew with --restart."
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Evidence)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(f"The evidence {path} cannot be read: {error}. {again}") from None
    reference = (wanted.fingerprint, wanted.recipe, wanted.source_sha256)
    if (found.fingerprint, found.recipe, found.source_sha256) != reference:
        raise UsageError(
            f"The evidence {path} was measured with another recipe, optimizer, grid, horizon or "
            f"data than {card.name} version {card.version} has now. {again}"
        )
    if found.machine_class != wanted.machine_class:
        raise UsageError(
            f"The evidence {path} was measured on another machine class, "
            f"{found.machine_class}; times are not pooled across them. {again}"
        )
    return found


def store_evidence(path: Path, evidence: Evidence) -> None:
    """Write the evidence; an interrupted write leaves what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".new")
    aside.write_bytes(msgspec.json.format(msgspec.json.encode(evidence), indent=1) + b"\n")
    aside.replace(path)


def curve_of(detail: RunDetail) -> Curve:
    """Return a run as a curve."""
    return Curve(
        seed=detail.record.seed,
        pace_s=detail.record.pace_s,
        drift=detail.record.drift,
        tainted=detail.record.tainted,
        ended=detail.record.outcome,
        points=[
            Point(
                model_passes=evaluation.model_passes,
                elapsed_s=evaluation.elapsed_ns / 1e9,
                value=evaluation.value,
                off_clock_s=(evaluation.export_ns + evaluation.evaluation_ns) / 1e9,
            )
            for evaluation in detail.evaluations
        ],
    )


def values(points: Iterable[Point]) -> list[float]:
    """Return the values that are numbers."""
    return [point.value for point in points if point.value is not None]
