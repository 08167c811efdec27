"""Measuring a claim: both sides tuned with equal effort, then pairs of their best points."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import catalogue
from harness.cards import Claim, SubmissionCard
from harness.errors import UsageError
from harness.judging.claims import FEWEST_PAIRS, UNDECIDED, Judgement, judge, judge_memory
from harness.judging.comparison import Amount, Pair
from harness.judging.tuning import ranked
from harness.run import Request
from harness.sweeps.contest import Contest, Result, Terms
from harness.sweeps.jobs import Job, Slot
from harness.sweeps.pairs import MadePair, Match, PairedRun, Unit, match
from harness.sweeps.points import as_settings, search_space
from harness.sweeps.tuning import points_to_try, trials_of, tuning_jobs

FIRST_SEED = 1000  # of the pairs: no seed that points were chosen on
UNITS: dict[str, Unit] = {
    "submission_time": "time",
    "steps": "steps",
    "examples": "examples",
    "model_passes": "passes",
}
# Bytes of a parameter in AdamW, float32: the weight, its gradient and two moments.
BYTES_PER_PARAMETER = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """One side's points on the claim's workload, and the runs that try them."""

    submission: str
    workload: str
    points: list[dict[str, str]]
    jobs: list[Job]

    def best(self, home: Path) -> dict[str, str] | None:
        """Return the best point, None while a run is missing.

        Raises as `harness.records.index.query`.
        """
        if len(self.points) == 1:
            return self.points[0]
        trials, missing = trials_of(self.jobs, self.points, home)
        return None if missing else ranked(trials)[0].point


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A claim and what it takes to try it."""

    card: SubmissionCard
    claim: Claim
    own: Tuning
    other: Tuning


def claimants(names: Sequence[str]) -> list[tuple[SubmissionCard, Claim]]:
    """Return the cards of these submissions with their claims; without names, all that claim.

    Raises:
        UsageError: an unknown name, or one whose card claims nothing.
    """
    cards = [catalogue.submission(name).card for name in names or catalogue.submissions()]
    found = [(card, card.claim) for card in cards if card.claim is not None]
    if names and len(found) < len(cards):
        silent = ", ".join(card.name for card in cards if card.claim is None)
        raise UsageError(
            f"The card of {silent} claims nothing. `bench claims list` shows who does; a card "
            "states its `claim` as CONTRIBUTING.md says."
        )
    return found


def trial_of(card: SubmissionCard, claim: Claim, trials: int, slot: Slot, home: Path) -> Trial:
    """Return the points that both sides try, as many each, and their runs.

    A submission that brings its own optimizer and its baseline both begin at their defaults.
    One that changes something else of the reference recipe inherits the recipe's point, so its
    baseline begins there too.

    Raises:
        UsageError: as `harness.run.plan`.
    """
    inherits = "optimizer" not in card.fillings
    baseline = catalogue.submission(claim.baseline).card
    return Trial(
        card=card,
        claim=claim,
        own=_tuning(card, claim.workload, trials, slot, home),
        other=_tuning(baseline, claim.workload, trials, slot, home, at_the_recipe=inherits),
    )


def _tuning(
    card: SubmissionCard,
    workload: str,
    trials: int,
    slot: Slot,
    home: Path,
    *,
    at_the_recipe: bool = False,
) -> Tuning:
    points: list[dict[str, str]] = [{}]
    jobs: list[Job] = []
    if trials > 1 and search_space(card):
        reference = catalogue.workload(workload).card if at_the_recipe else None
        points = points_to_try(card, reference, trials, seed=0)
        jobs = tuning_jobs(card.name, {workload: points}, 1, slot, home)
    return Tuning(submission=card.name, workload=workload, points=points, jobs=jobs)


def match_of(trial: Trial, slot: Slot, home: Path) -> Match:
    """Return the two sides at their best points; all tuning runs must be there.

    Raises as `harness.run.plan`, and `harness.records.index.query`.
    """
    sides = []
    for side in (trial.own, trial.other):
        point = side.best(home)
        assert point is not None, "a tuning run is missing"
        sides.append(
            Request(
                submission=side.submission,
                workload=side.workload,
                settings=as_settings(side.submission, point),
                device=slot.device,
                cores=slot.cores,
                home=home,
                tuned=False,
                tuning_effort=effort(len(side.points)),
            )
        )
    return match(*sides)


def effort(points: int) -> str:
    """Return what the record says of the tuning."""
    return "defaults" if points == 1 else f"{points} trials"


def contest_of(one: Match, pairs: int, home: Path) -> Contest:
    """Return the contest that makes the pairs."""
    terms = Terms(
        seeds=range(FIRST_SEED, FIRST_SEED + pairs),
        until_decided=False,
        alpha=0.05,
        effect=0.05,
        clock="cold",
    )
    return Contest(home, [one], terms)


def judgement(claim: Claim, result: Result) -> Judgement:
    """Judge the claim by the pairs that count."""
    pairs = result.counted
    if claim.metric != "peak_memory":
        unit = UNITS[claim.metric]
        return judge(claim.ratio, [pair.amounts(unit) for pair in pairs])
    both = [pair for pair in pairs if pair.a.outcome == pair.b.outcome == "reached"]
    peaks = [found for pair in both if (found := _peaks(pair)) is not None]
    card = result.match.card
    judged = judge_memory(claim.ratio, peaks, BYTES_PER_PARAMETER * card.parameters)
    if len(both) < FEWEST_PAIRS <= len(pairs):
        missed = f"both sides reached the target in {len(both)} of {len(pairs)} pairs only"
        return dataclasses.replace(judged, verdict=UNDECIDED, reason=missed)
    return judged


def _peaks(pair: MadePair) -> Pair | None:
    own, other = _peak(pair.a), _peak(pair.b)
    return Pair(a=Amount(value=own), b=Amount(value=other)) if own and other else None


def _peak(run: PairedRun) -> int | None:
    """Return the memory that training took: on the GPU, or above the idle process."""
    return run.gpu_peak_memory_bytes or run.peak_memory_above_idle_bytes
