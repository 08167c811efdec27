"""A contest: pairs of runs on one or several workloads, made until there are enough of them."""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.judging.comparison import Comparison, compare_pairs, further_pairs, with_holm
from harness.judging.sequential_test import fewest_pairs
from harness.spec import ClockKind
from harness.sweeps.execution import Executor, Watcher
from harness.sweeps.jobs import Job
from harness.sweeps.pairs import (
    ATTEMPTS,
    MadePair,
    Match,
    Retry,
    SeedStanding,
    made_pairs,
    seed_standing,
)

HOPELESS = 5  # pairs in which both missed, and none in which one did not


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """How many pairs a contest takes, and what it asks of them."""

    seeds: range  # one a pair; until it is decided, no more than these
    until_decided: bool
    alpha: float
    effect: float
    clock: ClockKind


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """How one match stands."""

    match: Match
    seeds: dict[int, SeedStanding]
    comparison: Comparison
    further_pairs: int | None  # that would show the effect; of `comparison` as it stands

    @property
    def counted(self) -> list[MadePair]:
        """The pairs that count, in the order in which they were made."""
        return _counted(self.seeds)

    @property
    def left_out(self) -> list[MadePair]:
        """The pairs that were made and do not count."""
        return [
            one.pair
            for one in self.seeds.values()
            if one.state in ("tainted", "failed") and one.pair is not None
        ]

    @property
    def given_up(self) -> bool:
        """Whether more pairs would be in vain: the first failed, or both sides always miss."""
        failed = any(one.state == "failed" for one in self.seeds.values())
        in_vain = self.comparison.pairs == 0 and self.comparison.untelling >= HOPELESS
        return (failed and not self.counted) or in_vain

    def decided(self, effect: float) -> bool:
        """Return whether a difference is shown, or one of `effect` ruled out."""
        shown = self.comparison.verdict != "no difference shown"
        return shown or self.comparison.rules_out(effect)


class Contest:
    """Makes the pairs that are missing; what was made before counts."""

    def __init__(
        self, home: Path, matches: Sequence[Match], terms: Terms, retry: Retry | None = None
    ) -> None:
        self._home = home
        self._matches = matches
        self.terms = terms
        self._retry = retry
        self._identities = [
            {seed: (one.a.identity(seed), one.b.identity(seed)) for seed in terms.seeds}
            for one in matches
        ]
        self._tried: Counter[tuple[int, int]] = Counter()

    def results(self) -> list[Result]:
        """Return how each match stands.

        Raises as `harness.records.index.query`.
        """
        terms = self.terms
        standings = [
            {seed: seed_standing(pairs, self._retry) for seed, pairs in made.items()}
            for made in made_pairs(self._home, self._identities)
        ]
        pairs = [
            [pair.amounts("time", terms.clock) for pair in _counted(standing)]
            for standing in standings
        ]
        comparisons = with_holm(
            [compare_pairs(own, alpha=terms.alpha, sequential=terms.until_decided) for own in pairs]
        )
        # Under Holm the least of those not shown yet has to pass this level.
        open_ones = sum(one.verdict == "no difference shown" for one in comparisons)
        return [
            Result(
                match=match,
                seeds=standing,
                comparison=comparison,
                further_pairs=further_pairs(
                    own,
                    effect=terms.effect,
                    alpha=terms.alpha / max(1, open_ones),
                    sequential=terms.until_decided,
                ),
            )
            for match, standing, comparison, own in zip(
                self._matches, standings, comparisons, pairs, strict=True
            )
        ]

    def due(self, results: Sequence[Result]) -> list[Job]:
        """Return the runs to make next, the matches in turn."""
        seeds = [self._due(number, result) for number, result in enumerate(results)]
        return [
            job
            for turn in itertools.zip_longest(*seeds)
            for result, seed in zip(results, turn, strict=True)
            if seed is not None
            for job in result.match.jobs(seed)
        ]

    def _due(self, number: int, result: Result) -> list[int]:
        terms = self.terms
        if result.given_up or (terms.until_decided and result.decided(terms.effect)):
            return []
        due = [
            seed
            for seed, one in result.seeds.items()
            if one.state == "due" and self._tried[number, seed] < ATTEMPTS
        ]
        if not result.comparison.pairs:
            return due[:1]  # what cannot run, or reach, shows here and costs little
        if terms.until_decided:
            earliest = fewest_pairs(terms.alpha / len(self._matches))
            return due[: max(1, earliest - result.comparison.pairs)]
        return due

    def run(
        self, executor: Executor, watcher: Watcher, interrupted: Callable[[], bool]
    ) -> list[Result]:
        """Make what is missing and return how the matches stand.

        Ends early once `interrupted` says so. Raises as `results`.
        """
        while True:
            results = self.results()
            jobs = self.due(results)
            if not jobs or interrupted():
                return results
            numbers = {one.card.name: number for number, one in enumerate(self._matches)}
            self._tried.update({(numbers[job.workload], job.seed) for job in jobs})
            executor.run(jobs, watcher, interrupted)


def _counted(standing: dict[int, SeedStanding]) -> list[MadePair]:
    pairs = [one.pair for one in standing.values() if one.state == "counted" and one.pair]
    return sorted(pairs, key=lambda pair: pair.created_at)
