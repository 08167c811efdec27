"""Pairs of runs, one of A and one of B: which there are, and which count.

Two runs are a pair if they have one seed and were made on one host right after one another, by
whatever command: what drifts on the machine then hits both alike. A run of last week is no
partner for one of today. A takes the first place in even seeds and B in odd ones, so that
over four runs, ABBA, neither profits from its place.
"""

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.cards import WorkloadCard
from harness.judging.comparison import Amount, Pair
from harness.run import Plan, Request, plan
from harness.spec import ClockKind
from harness.sweeps.jobs import Job, job_of
from harness.sweeps.status import FAILED

APART_S = 300.0  # between two runs of a pair, or as long as the longer of them takes
ATTEMPTS = 3  # at a pair, where runs are tainted
TELLING = frozenset({"reached", "budget", "diverged"})  # outcomes that say something of the time

Unit = Literal["time", "steps", "examples", "passes"]
State = Literal["counted", "tainted", "failed", "due"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """A against B on one workload."""

    a: Plan
    b: Plan

    @property
    def card(self) -> WorkloadCard:
        """The workload's card."""
        return self.a.card

    def jobs(self, seed: int) -> tuple[Job, Job]:
        """Return the two runs of a pair in their order."""
        a, b = job_of(self.a, seed), job_of(self.b, seed)
        return (a, b) if seed % 2 == 0 else (b, a)


def match(a: Request, b: Request) -> Match:
    """Resolve two requests on one workload.

    Raises as `harness.run.plan`.
    """
    return Match(a=plan(a), b=plan(b))


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedRun:
    """What a comparison asks of a run. Missing is None."""

    run_id: str
    outcome: str
    reason: str
    tainted: Sequence[str]
    created_at: datetime.datetime
    host: str | None
    took_s: float
    time_to_target_s: float | None
    time_without_compile_s: float | None
    compile_s: float | None
    budget_s: float
    steps: int
    examples: int
    model_passes: int
    steps_to_target: int | None
    examples_to_target: int | None
    model_passes_to_target: int | None
    peak_memory_bytes: int | None
    peak_memory_above_idle_bytes: int | None
    gpu_peak_memory_bytes: int | None
    energy_j: float | None

    def amount(self, unit: Unit, clock: ClockKind) -> Amount:
        """Return what the run needed; at least what it was given, if it missed."""
        if unit == "time":
            warm = clock == "warm"
            time_s = self.time_without_compile_s if warm else self.time_to_target_s
            # On the warm clock the budget ends sooner, by what was spent on compilation.
            given_s = self.budget_s - (self.compile_s or 0.0 if warm else 0.0)
            return Amount(value=given_s if time_s is None else time_s, reached=time_s is not None)
        needed, given = {
            "steps": (self.steps_to_target, self.steps),
            "examples": (self.examples_to_target, self.examples),
            "passes": (self.model_passes_to_target, self.model_passes),
        }[unit]
        return Amount(value=given if needed is None else needed, reached=needed is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class MadePair:
    """Two runs made right after one another with one seed."""

    seed: int
    a: PairedRun
    b: PairedRun

    @property
    def created_at(self) -> datetime.datetime:
        """When the first of the two was set up."""
        return min(self.a.created_at, self.b.created_at)

    @property
    def failures(self) -> list[PairedRun]:
        """The runs that say nothing of the time."""
        return [run for run in (self.a, self.b) if run.outcome not in TELLING]

    @property
    def taints(self) -> list[str]:
        """Why the pair does not count; empty: it does."""
        return list(dict.fromkeys([*self.a.tainted, *self.b.tainted]))

    def amounts(self, unit: Unit = "time", clock: ClockKind = "cold") -> Pair:
        """Return the pair as it is judged."""
        return Pair(a=self.a.amount(unit, clock), b=self.b.amount(unit, clock))


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """What of the past to try again: failed or tainted pairs from before a moment."""

    before: datetime.datetime
    failed: bool = False
    tainted: bool = False

    def forgives(self, pair: MadePair) -> bool:
        """Return whether the pair is to be made again."""
        if pair.created_at >= self.before:
            return False
        return self.failed if pair.failures else self.tainted and bool(pair.taints)


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedStanding:
    """What became of one seed: the pair that counts, or what kept it from counting."""

    state: State
    pair: MadePair | None  # the one that counts, else the last that was made


def seed_standing(pairs: Sequence[MadePair], retry: Retry | None = None) -> SeedStanding:
    """Return how a seed stands, given its pairs in the order in which they were made.

    The first untainted pair counts: a choice among several would favour a side.
    """
    for pair in pairs:
        if not pair.failures and not pair.taints:
            return SeedStanding(state="counted", pair=pair)
    tried = [pair for pair in pairs if retry is None or not retry.forgives(pair)]
    last = tried[-1] if tried else None
    if last is not None and last.failures:
        return SeedStanding(state="failed", pair=last)
    if len(tried) >= ATTEMPTS:
        return SeedStanding(state="tainted", pair=last)
    return SeedStanding(state="due", pair=last)


def made_pairs(
    home: Path, identities: Sequence[Mapping[int, tuple[str, str]]]
) -> list[dict[int, list[MadePair]]]:
    """Return for each match the pairs that were made, by seed, in the order of their making.

    `identities` are those of A and B for each seed. Raises as `harness.records.index.query`.
    """
    from harness.records import index

    wanted = {name for by_seed in identities for names in by_seed.values() for name in names}
    listed = ", ".join(f"'{name}'" for name in sorted(wanted))
    runs: dict[str, list[PairedRun]] = {}
    for row in index.query(home, _SQL.format(identities=listed)).to_dicts():
        runs.setdefault(row.pop("identity"), []).append(PairedRun(**row))
    return [
        {seed: _in_pairs(seed, a, b, runs) for seed, (a, b) in by_seed.items()}
        for by_seed in identities
    ]


def _in_pairs(seed: int, a: str, b: str, runs: Mapping[str, Sequence[PairedRun]]) -> list[MadePair]:
    """Pair runs off in the order in which they were made."""
    ordered = [(run, identity) for identity in {a, b} for run in runs.get(identity, ())]
    ordered.sort(key=lambda one: (one[0].created_at, one[0].run_id))
    found: list[MadePair] = []
    number = 0
    while number + 1 < len(ordered):
        (first, whose), (second, other) = ordered[number : number + 2]
        if (a != b and whose == other) or not _together(first, second):
            number += 1
            continue
        # One submission against itself: its place says which is A.
        a_first = whose == a if a != b else seed % 2 == 0
        one, two = (first, second) if a_first else (second, first)
        found.append(MadePair(seed=seed, a=one, b=two))
        number += 2
    return found


def _together(first: PairedRun, second: PairedRun) -> bool:
    between_s = (second.created_at - first.created_at).total_seconds() - first.took_s
    allowed_s = max(APART_S, first.took_s, second.took_s)
    return first.host == second.host and between_s <= allowed_s


# The interrupted ones are not there: a run whose partner was interrupted has no partner.
_OUTCOMES = ", ".join(f"'{outcome}'" for outcome in sorted(TELLING | FAILED | {"skipped"}))
_AS_THEY_ARE = ", ".join(
    field.name
    for field in dataclasses.fields(PairedRun)
    if field.name not in ("took_s", "compile_s")
)
_SQL = f"""
    SELECT identity, {_AS_THEY_ARE},
           submission_time_s + evaluation_s + export_s AS took_s,
           (SELECT max(compile_s) FROM evaluations WHERE evaluations.run_id = runs.run_id)
               AS compile_s
    FROM runs WHERE identity IN ({{identities}}) AND outcome IN ({_OUTCOMES})
    ORDER BY created_at, run_id
"""  # noqa: S608 - our own names
