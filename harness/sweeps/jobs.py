"""From a sweep's file to its runs, in the order in which they are handed out."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import catalogue
from harness.candidates import candidate_named, split_names
from harness.cards import SubmissionCard
from harness.data_files import require
from harness.errors import UsageError
from harness.run import Plan, Request, plan
from harness.suites import workloads_named
from harness.sweeps.points import as_settings, draw_points, search_space
from harness.sweeps.rulesets import Ruleset, ruleset_named
from harness.sweeps.sweep_file import Entrant, SweepFile


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One run of a sweep."""

    request: Request
    seed: int
    identity: str
    submission: str
    workload: str
    machine_class: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """Where a run may happen: a device, or a set of cores, with so many slots beside it.

    A run of several processes also has the GPUs that follow its device.
    """

    device: str
    cores: tuple[int, ...] | None = None
    beside: int = 0

    @property
    def name(self) -> str:
        """How its runs are told from those beside them, empty where none are."""
        if self.cores is not None:
            return f"cores {', '.join(map(str, self.cores))}"
        return "" if self.device == "cpu" else self.device

    def take(self, request: Request) -> Request:
        """Return the request as this slot runs it."""
        return dataclasses.replace(
            request, device=self.device, cores=self.cores, beside=self.beside
        )


def job_of(chosen: Plan, seed: int) -> Job:
    """Return one run of a plan."""
    return Job(
        request=chosen.request,
        seed=seed,
        identity=chosen.identity(seed),
        submission=chosen.resolved.name,
        workload=chosen.card.name,
        machine_class=chosen.machine_class,
    )


def jobs_of(sweep: SweepFile, slot: Slot, home: Path) -> list[Job]:
    """Return the runs of a sweep, as one slot would run them.

    Round by round (a seed, or a trial of a study), workload by workload, the submissions take
    turns, each round begun by another one: what drifts on the machine hits all alike.

    Raises:
        UsageError: a name, key or value that does not exist; a submission that names twice.
    """
    workloads = list(
        dict.fromkeys(name for text in sweep.workloads for name in workloads_named(text))
    )
    ruleset = None if sweep.ruleset is None else ruleset_named(sweep.ruleset)
    rounds = _rounds(sweep, ruleset)
    plans: dict[tuple[object, ...], Plan] = {}
    jobs: list[Job] = []
    for number, (study, trial) in enumerate(rounds):
        first = number % len(sweep.submissions)
        entrants = [*sweep.submissions[first:], *sweep.submissions[:first]]
        for workload in workloads:
            for entrant in entrants:
                request = _request(sweep, ruleset, entrant, workload, study, trial, slot, home)
                if request is None:
                    continue
                key = (request.submission, request.settings, workload, request.tuned)
                if key not in plans:
                    plans[key] = plan(request)
                chosen = dataclasses.replace(plans[key], request=request)
                jobs.append(job_of(chosen, sweep.first_seed + number))
    _refuse_twins(jobs)
    return jobs


def require_data(jobs: Sequence[Job]) -> None:
    """Refuse jobs whose data files are missing or damaged here.

    Raises as `harness.data_files.require`.
    """
    require(catalogue.workload(name).card for name in dict.fromkeys(job.workload for job in jobs))


def _rounds(sweep: SweepFile, ruleset: Ruleset | None) -> list[tuple[int | None, int | None]]:
    if ruleset is None:
        return [(None, None)] * (sweep.seeds or 1)
    studies, trials = sweep.studies or ruleset.studies, _trials(sweep, ruleset)
    return [(study, trial) for trial in range(trials) for study in range(studies)]


def _trials(sweep: SweepFile, ruleset: Ruleset) -> int:
    return sweep.trials or ruleset.trials


def _request(
    sweep: SweepFile,
    ruleset: Ruleset | None,
    entrant: Entrant,
    workload: str,
    study: int | None,
    trial: int | None,
    slot: Slot,
    home: Path,
) -> Request | None:
    """Return what to run, None where an entrant has fewer points than there are trials."""
    request = Request(
        submission=entrant.submission,
        workload=workload,
        settings=tuple(f"{name}={value}" for name, value in entrant.set.items()),
        home=home,
        budget_paces=sweep.budget_paces,
        nproc=sweep.nproc,
        ruleset=sweep.ruleset,
        study=study,
        trial=trial,
    )
    request = slot.take(request)
    if ruleset is None:
        return request
    if sweep.budget_paces is None and ruleset.budget_factor != 1:
        budget = catalogue.workload(workload).card.budget_paces * ruleset.budget_factor
        request = dataclasses.replace(request, budget_paces=budget)
    if ruleset.tuning == "self":
        return dataclasses.replace(request, tuned=False)
    assert study is not None
    assert trial is not None
    trials = _trials(sweep, ruleset)
    points = _points(sweep, entrant, workload, study, trials)
    if trial >= len(points):
        return None
    return dataclasses.replace(
        request,
        settings=(*request.settings, *points[trial]),
        tuned=False,
        tuning_effort=f"trial of {len(points)}",
    )


def _points(
    sweep: SweepFile, entrant: Entrant, workload: str, study: int, trials: int
) -> list[tuple[str, ...]]:
    """Return the settings to try in one study: those listed, else drawn from the cards' ranges."""
    if entrant.points:
        return [
            tuple(f"{name}={value}" for name, value in point.items())
            for point in entrant.points[:trials]
        ]
    cards = list(_searchable(entrant))
    if not cards:
        raise UsageError(
            f"{entrant.submission} has no search ranges, so external tuning has nothing to try. "
            "Give `search` for a hyperparameter on its card, `points` in the sweep's file, or "
            "another ruleset."
        )
    drawn = [
        draw_points(card, trials, (sweep.points_seed, card.name, workload, study)) for card in cards
    ]
    return [
        tuple(
            setting
            for card, points in zip(cards, drawn, strict=True)
            for setting in as_settings(card.name, points[trial])
        )
        for trial in range(trials)
    ]


def _searchable(entrant: Entrant) -> Iterator[SubmissionCard]:
    for name in split_names(entrant.submission):
        card = candidate_named(name).card
        if card is not None and search_space(card):
            yield card


def _refuse_twins(jobs: Sequence[Job]) -> None:
    seen: set[str] = set()
    for job in jobs:
        if job.identity in seen:
            raise UsageError(
                f"The sweep asks twice for {job.submission} on {job.workload} with seed "
                f"{job.seed} at one point. Name each submission and point once."
            )
        seen.add(job.identity)
