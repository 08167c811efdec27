"""The protocol: run the reference past its target, set the target, then run worse recipes at it.

1. *Curves.* The reference recipe with seeds 0 … n-1, each to the end of the horizon and a
   quarter further. All that a card states of noise follows from them, for any target.
2. *The target*, from the curves (harness.calibration.figures) or as given.
3. *Rivals.* The reference with a tenth of and ten times its learning rate, and plain SGD, to the
   target or for half as long again as the slowest run of the reference. A workload that cannot
   tell them from the reference tells nothing.
4. *Neighbours.* The reference with half and twice its learning rate. None may be faster beyond
   doubt: a reference that is not tuned flatters whatever is compared with it.

Every run is stored before the next begins, so an interrupted calibration goes on where it was.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from harness import catalogue
from harness.calibration.evidence import (
    Evidence,
    Rival,
    curve_of,
    evidence_path,
    fingerprint,
    load_evidence,
    store_evidence,
)
from harness.calibration.figures import (
    CV_AIM,
    FALSE_REACH_AT_MOST,
    QUANTISATION_AT_MOST,
    REACHED_AT_LEAST,
    Figures,
    Separation,
    TooFewError,
    calibrated,
    separation,
    with_target,
)
from harness.cards import WorkloadCard
from harness.events import Evaluation
from harness.records.record import RunRecord
from harness.run import Plan, Progress, Request, carry_out, plan

BEYOND_HORIZON = 1.25
LEARNING_RATES = {"lr ÷ 10": 0.1, "lr × 10": 10.0, "lr ÷ 2": 0.5, "lr × 2": 2.0}
NEIGHBOURS = ("lr ÷ 2", "lr × 2")
PLAIN_SGD = "torch.optim:SGD"
PLAIN_SGD_RATES = (0.01, 0.1, 1.0)
UNLIMITED_PACES = 1e9


class RunFailedError(Exception):
    """A run failed in a way that says nothing of its recipe; the message says how."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A recipe to run: a submission and its `--set`s."""

    name: str
    submission: str
    settings: tuple[str, ...] = ()
    neighbour: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What the user decides of a calibration."""

    workload: str
    seeds: int
    rival_seeds: int
    margin_sigmas: float
    target: float | None  # None: suggested by the curves
    device: str
    home: Path  # run directories and pace
    evidence: Path  # folder of the evidence
    restart: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a calibration found."""

    card: WorkloadCard
    path: Path
    figures: Figures
    separations: list[Separation]


class Calibration:
    """One workload's calibration, from the start or from where it was.

    Raises:
        UsageError: an unknown workload or device, or evidence of another card or machine.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._card = catalogue.workload(settings.workload).card
        self._reference = Recipe(name="reference", submission=self._card.recipe.optimizer)
        chosen = self._plan(self._reference, None, None)
        self._learning_rate = chosen.resolved.hyperparameters.get("lr")
        self._path = evidence_path(settings.evidence, self._card)
        self._evidence = Evidence(
            workload=self._card.name,
            workload_version=self._card.version,
            fingerprint=fingerprint(self._card),
            machine_class=chosen.machine_class,
            measured="",
            recipe=chosen.resolved.hyperparameters,
            source_sha256=chosen.resolved.source_sha256,
        )
        if not settings.restart:
            found = load_evidence(self._path, self._card, self._evidence)
            self._evidence = found or self._evidence

    @property
    def runs_left(self) -> int:
        """How many runs are still to do, with all rivals where the target may yet move."""
        evidence, settings = self._evidence, self._settings
        curves = sum(not evidence.has_curve(seed) for seed in range(settings.seeds))
        rivals = len(list(self._rivals())) * settings.rival_seeds
        if curves == 0:
            with contextlib.suppress(TooFewError):
                rivals = len(self._rivals_left(self._figures()))
        return curves + rivals

    def run(self, progress: Progress, interrupted: Callable[[], bool]) -> Outcome:
        """Carry out what is left and return what it all says.

        Raises:
            KeyboardInterrupt: the user asked to end; what was run is stored.
            RunFailedError: a run ended in a way that says nothing of its recipe.
            TooFewError: the curves carry no figures.
            OSError: a record could not be written.
        """
        for seed in range(self._settings.seeds):
            if not self._evidence.has_curve(seed):
                self._run_curve(seed, progress, interrupted)
        figures = self._figures()
        for recipe, seed in self._rivals_left(figures):
            self._run_rival(recipe, seed, figures, progress, interrupted)
        return self._conclude(figures)

    def _rivals_left(self, figures: Figures) -> list[tuple[Recipe, int]]:
        run = self._evidence.rivals_at(figures.target, figures.rival_budget_paces)
        done = {(rival.name, rival.seed) for rival in run}
        return [
            (recipe, seed)
            for recipe in self._rivals()
            for seed in range(self._settings.rival_seeds)
            if (recipe.name, seed) not in done
        ]

    def _figures(self) -> Figures:
        settings = self._settings
        return calibrated(
            self._card, self._evidence.curves, settings.margin_sigmas, settings.target
        )

    def _rivals(self) -> Iterator[Recipe]:
        if self._settings.rival_seeds == 0:
            return
        if isinstance(self._learning_rate, float):
            for name, factor in LEARNING_RATES.items():
                setting = f"lr={self._learning_rate * factor:.6g}"
                yield dataclasses.replace(
                    self._reference,
                    name=name,
                    settings=(setting,),
                    neighbour=name in NEIGHBOURS,
                )
        for rate in PLAIN_SGD_RATES:
            yield Recipe(
                name=f"plain SGD, lr {rate:g}", submission=PLAIN_SGD, settings=(f"lr={rate:g}",)
            )

    def _plan(self, recipe: Recipe, target: float | None, budget: float | None) -> Plan:
        settings = self._settings
        chosen = plan(
            Request(
                submission=recipe.submission,
                workload=settings.workload,
                settings=recipe.settings,
                device=settings.device,
                home=settings.home,
                budget_paces=budget,
            )
        )
        if target is None:
            return chosen
        card = msgspec.structs.replace(chosen.card, metric=with_target(chosen.card.metric, target))
        return dataclasses.replace(chosen, entry=dataclasses.replace(chosen.entry, card=card))

    def _run_curve(self, seed: int, progress: Progress, interrupted: Callable[[], bool]) -> None:
        card = self._card
        enough = (
            BEYOND_HORIZON
            * card.passes_per_reference_step
            * (card.horizon_examples / card.batch_size)
        )

        def stopped(evaluation: Evaluation) -> str | None:
            return "the horizon is over" if evaluation.model_passes >= enough else None

        unmet = card.metric.out_of_reach.target
        chosen = self._plan(self._reference, unmet, UNLIMITED_PACES)
        progress.say("The reference, past any target to the end of the horizon:")
        detail = carry_out(chosen, seed, progress, interrupted=interrupted, stopped=stopped)
        _accept(detail.record, {"stopped", "diverged"})
        self._evidence.curves.append(curve_of(detail))
        self._store()

    def _run_rival(
        self,
        recipe: Recipe,
        seed: int,
        figures: Figures,
        progress: Progress,
        interrupted: Callable[[], bool],
    ) -> None:
        chosen = self._plan(recipe, figures.target, figures.rival_budget_paces)
        question = "is it faster?" if recipe.neighbour else "is it told apart?"
        progress.say(f"The reference beside {recipe.name}: {question}")
        record = carry_out(chosen, seed, progress, interrupted=interrupted).record
        _accept(record, {"reached", "budget", "diverged"})
        self._evidence.rivals.append(
            Rival(
                name=recipe.name,
                seed=seed,
                target=figures.target,
                budget_paces=figures.rival_budget_paces,
                outcome=record.outcome,
                normalised_time=record.normalised_time,
                best_value=record.best_metric,
            )
        )
        self._store()

    def _conclude(self, figures: Figures) -> Outcome:
        metric = with_target(self._card.metric, figures.target)
        rivals = self._evidence.rivals_at(figures.target, figures.rival_budget_paces)
        separations = [
            separation(
                recipe.name, rivals, self._evidence.curves, metric, neighbour=recipe.neighbour
            )
            for recipe in self._rivals()
        ]
        self._evidence.figures = dataclasses.asdict(figures) | {
            "separation": [
                dataclasses.asdict(found) | {"told_apart": found.told_apart, "faster": found.faster}
                for found in separations
            ]
        }
        self._store()
        return Outcome(card=self._card, path=self._path, figures=figures, separations=separations)

    def _store(self) -> None:
        self._evidence.measured = f"{datetime.now(tz=UTC):%Y-%m-%d}"
        store_evidence(self._path, self._evidence)


def _accept(record: RunRecord, outcomes: set[str]) -> None:
    """Return if the run is evidence; a crash, a hang or a lack of memory is not."""
    if record.outcome == "interrupted":
        raise KeyboardInterrupt
    if record.outcome not in outcomes:
        raise RunFailedError(
            f"{record.submission} with seed {record.seed} ended as {record.outcome}: "
            f"{record.reason}. `bench show {record.run_id} --results …` has it all; the same "
            "command tries again"
        )


def shortcomings(figures: Figures, separations: Sequence[Separation]) -> list[str]:
    """Return what keeps the card from being a good one, in words; empty: nothing."""
    found = []
    if figures.reached < REACHED_AT_LEAST * figures.runs:
        found.append(
            f"{figures.reached} of {figures.runs} runs reached the target, fewer than "
            f"{REACHED_AT_LEAST:.0%}: a wider margin makes it easier"
        )
    if figures.passes_cv > CV_AIM:
        found.append(
            f"the work to the target varies by {figures.passes_cv:.1%} (aim {CV_AIM:.0%}): the "
            "more it varies, the more seeds every comparison needs"
        )
    if figures.quantisation > QUANTISATION_AT_MOST:
        found.append(
            f"the grid is {figures.quantisation:.1%} of the work to the target, more than "
            f"{QUANTISATION_AT_MOST:.0%}: choose a finer one"
        )
    if figures.false_reach_chance > FALSE_REACH_AT_MOST:
        found.append(
            f"{figures.false_reach_chance:.0%} of runs one sigma short were called reached, more "
            f"than {FALSE_REACH_AT_MOST:.0%}: evaluate on more examples or a smoother metric"
        )
    found += [
        f"{separated.name} is not told apart from the reference "
        f"({separated.reached} of {separated.runs} reached)"
        for separated in separations
        if not (separated.told_apart or separated.neighbour)
    ]
    found += [
        f"{separated.name} is faster than the reference ({separated.slowdown:.2f}, 95 % "
        f"{separated.low:.2f} to {separated.high:.2f}): tune the recipe, as a new version"
        for separated in separations
        if separated.faster
    ]
    return found
