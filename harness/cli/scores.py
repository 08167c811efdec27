"""`bench leaderboard --score algoperf`: performance profiles of imported logs and of own runs."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness import wording
from harness.cli import tables
from harness.cli.tables import Format
from harness.errors import UsageError, one_of
from harness.spec import ClockKind
from harness.table_text import Column, filled

if TYPE_CHECKING:
    from harness.interop.algoperf.imports import Import
    from harness.judging.performance_profile import Pool
    from harness.judging.standings import Standing

_SCORES = ("suite", "algoperf")
_RULES = ("documented", "as-published")
_CHOICES = (  # of `score_options`, in the order in which they are shown
    click.option(
        "--score",
        type=click.Choice(_SCORES),
        help="Rank over workloads: times against the reference recipe's, over the suite of "
        "--workload; or AlgoPerf's performance profiles.",
    ),
    click.option(
        "--rule",
        type=click.Choice(_RULES),
        help="A study's time: its fastest trial's, or as AlgoPerf's published tables have it, "
        "that of the trial with the earliest evaluation. [default: documented]",
    ),
    click.option(
        "--targets",
        metavar="NAME|FILE",
        help="Of imported logs: v0.5, v0.6 or a file. [default: the import's]",
    ),
    click.option("--from-import", metavar="NAME", help="Score these imported logs only."),
    click.option(
        "--exclude",
        multiple=True,
        metavar="SUBMISSION",
        help="Score without it; the others' scores change.",
    ),
    click.option(
        "--relative-to", metavar="SUBMISSION", help="Show times over its times, geometric mean."
    ),
)


def score_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --score and what belongs to it; the command gets them as one `Selection`'s fields."""
    for option in reversed(_CHOICES):
        command = option(command)
    return command


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """What is to be scored, and how."""

    score: str | None
    rule: str | None
    targets: str | None
    from_import: str | None
    exclude: tuple[str, ...]
    relative_to: str | None

    def refuse_options(self) -> None:
        """Raise UsageError where an option is given that belongs to AlgoPerf's score alone."""
        for name in ("rule", "targets", "from_import", "exclude", "relative_to"):
            if getattr(self, name):
                option = f"--{name.replace('_', '-')}"
                raise UsageError(
                    f"{option} belongs to --score algoperf. Give that, or leave it out."
                )

    @property
    def of_imports(self) -> str | None:
        """The option that is about imported logs alone."""
        if self.from_import or self.targets:
            return "--from-import" if self.from_import else "--targets"
        return "--rule as-published" if self.rule == "as-published" else None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Table:
    """A pool and what a reader has to know of it."""

    title: str
    fields: Mapping[str, Any]  # equal in every row
    pool: "Pool"
    budgets_s: Callable[[], Mapping[str, float]]
    notes: Sequence[str]
    submission_of: Mapping[str, str]  # by entry


def print_scores(
    home: Path,
    selection: Selection,
    form: Format,
    *,
    names: Sequence[str] | None,
    clock: ClockKind,
    files: str | None,
) -> None:
    """Print a table for each pool; `names`, `clock` and `files` choose among own runs.

    Raises:
        UsageError: a name that does not exist, options that exclude each other.
    """
    of_runs = "--workload" if names is not None else "--from" if files else None
    of_runs = of_runs or ("--clock warm" if clock == "warm" else None)
    if of_runs and selection.of_imports:
        raise UsageError(
            f"{of_runs} is about this home's own runs, {selection.of_imports} about imported "
            f"logs. Give one."
        )
    scored = [] if selection.of_imports else _tables_of_runs(home, names, clock, files)
    if not of_runs:
        scored += _tables_of_imports(home, selection)
    _print_tables(_without(scored, selection.exclude), selection.relative_to, form, home)


def _tables_of_runs(
    home: Path, names: Sequence[str] | None, clock: ClockKind, files: str | None
) -> list[_Table]:
    from harness.judging.scored_runs import pools_of_runs

    return [
        _Table(
            title=f"tuning effort: {one.tuning_effort} · {one.machine_class}",
            fields={
                "import": None,
                "ruleset": None,
                "targets": None,
                "rule": _RULES[0],
                "tuning_effort": one.tuning_effort,
                "machine_class": one.machine_class,
                "clock": clock,
                "workload_versions": one.versions,
            },
            pool=one.pool,
            budgets_s=lambda one=one: one.budgets_s,  # type: ignore[misc]
            notes=one.notes,
            submission_of=one.submission_of,
        )
        for one in pools_of_runs(home, names, clock, files)
    ]


def _tables_of_imports(home: Path, selection: Selection) -> list[_Table]:
    from harness.interop.algoperf.imports import import_named, imports, imports_folder

    named = selection.from_import
    chosen = [import_named(home, named)] if named else imports(home)
    if not chosen and selection.of_imports:
        raise UsageError(
            f"{selection.of_imports} is about imported logs, and {imports_folder(home)} holds "
            f"none. `bench import algoperf DIR` reads AlgoPerf's."
        )
    return [table for one in chosen for table in _tables_of_import(one, selection)]


def _tables_of_import(one: "Import", selection: Selection) -> list[_Table]:
    from harness.interop.algoperf.scoring import RULES, budgets_s, pool_of, rulesets_in

    trials = one.table("trials")
    named, targets = one.targets_for(selection.targets)
    rule = next(rule for rule in RULES if rule == (selection.rule or RULES[0]))
    scored = []
    for ruleset in rulesets_in(trials):
        pool = pool_of(one.table("evaluations"), trials, targets, ruleset, rule)
        parts = [f"import {one.name}", ruleset, f"targets {named}", f"rule {rule}"]
        scored.append(
            _Table(
                title=" · ".join(part for part in parts if part),
                fields={
                    "import": one.name,
                    "ruleset": ruleset or None,
                    "targets": named,
                    "rule": rule,
                    "tuning_effort": None,
                    "machine_class": None,
                    "clock": None,
                    "workload_versions": None,
                },
                pool=pool,
                budgets_s=lambda ruleset=ruleset: budgets_s(targets, ruleset),  # type: ignore[misc]
                notes=[],
                submission_of={name: name for name in pool.submissions},
            )
        )
    return scored


def _without(scored: Sequence[_Table], exclude: Sequence[str]) -> list[_Table]:
    known = {name for table in scored for pair in table.submission_of.items() for name in pair}
    for name in exclude:
        if name not in known:
            raise one_of("The submission", name, known, "Nothing was scored.")
    return [
        dataclasses.replace(
            table,
            pool=table.pool.without(
                entry
                for entry, submission in table.submission_of.items()
                if entry in exclude or submission in exclude
            ),
        )
        for table in scored
    ]


def _print_tables(
    scored: Sequence[_Table], relative_to: str | None, form: Format, home: Path
) -> None:
    known = {name for table in scored for name in table.pool.submissions}
    if relative_to is not None and relative_to not in known:
        raise one_of("The submission", relative_to, known)
    ranked = [(table, _standings(table, relative_to)) for table in scored]
    if form in ("json", "csv"):
        rows = [_row(table, standing) for table, found in ranked for standing in found]
        tables.print_rows(rows, [Column(field=name, header=name) for name in _FIELDS], form)
        for table, _ in ranked:
            for note in _notes(table):
                click.echo(f"{table.title}: {note}", err=True)
    elif not any(found for _, found in ranked):
        click.echo(
            f"There is nothing to score in {home} yet. `bench sweep` runs submissions on "
            f"workloads, `bench import algoperf DIR` reads AlgoPerf's logs."
        )
    else:
        for table, found in ranked:
            _print_table(table, found, form)


def _standings(table: _Table, relative_to: str | None) -> "list[Standing]":
    from harness.judging.standings import Reference, standings

    if relative_to not in table.pool.submissions:
        return standings(table.pool)
    assert relative_to is not None
    return standings(table.pool, Reference(submission=relative_to, budgets_s=table.budgets_s()))


def _notes(table: _Table) -> list[str]:
    from harness.judging.standings import no_intervals, notes_on

    missing = no_intervals(table.pool)
    return [*table.notes, *notes_on(table.pool), *([missing] if missing else [])]


_FIELDS = (
    *("rank", "rank_low", "rank_high", "tied_group", "submission", "score", "score_low"),
    *("score_high", "studies", "relative_time", "profile", "times_s", "not_run"),
    *("import", "ruleset", "targets", "rule", "tuning_effort", "machine_class", "clock"),
    "workload_versions",
)


def _row(table: _Table, standing: "Standing") -> dict[str, Any]:
    return {**dataclasses.asdict(standing), **table.fields}


def _print_table(table: _Table, found: "Sequence[Standing]", form: Format) -> None:
    click.echo(f"### {table.title}\n" if form == "md" else table.title)
    rows = [_for_people(standing, len(table.pool.workloads)) for standing in found]
    shown = filled(_COLUMNS, rows)
    tables.print_rows(rows, shown, form)
    for note in ["", *_notes(table), _sentence(found)]:
        click.echo(note)
    click.echo()


def _for_people(standing: "Standing", workloads: int) -> dict[str, str]:
    def within(tau: float) -> str:
        from harness.judging.performance_profile import TAUS

        share = standing.profile[int(TAUS.searchsorted(tau))]
        return f"{round(share * workloads)}/{workloads}"

    relative = standing.relative_time
    return {
        "rank": str(standing.rank),
        "submission": standing.submission,
        "score": wording.score(standing.score),
        "interval": wording.score_interval(standing.score_low, standing.score_high),
        "ranks": "" if standing.rank_low is None else f"{standing.rank_low}–{standing.rank_high}",
        "fastest": within(1.0),
        "twice": within(2.0),
        "credited": within(4.0),
        "relative_time": "" if relative is None else f"{relative:.4f}",
        "studies": str(standing.studies),
        "not_run": ", ".join(standing.not_run),
    }


_COLUMNS = [
    Column(field="rank", header="#", number=True),
    Column(field="submission", header="submission"),
    Column(field="score", header="score", number=True),
    Column(field="interval", header="95 %", number=True, drop=1),
    Column(field="ranks", header="ranks", number=True),
    Column(field="fastest", header="fastest", number=True, drop=2),
    Column(field="twice", header="≤ 2×", number=True, drop=3),
    Column(field="credited", header="≤ 4×", number=True, drop=2),
    Column(field="relative_time", header="× time", number=True),
    Column(field="studies", header="studies", number=True, drop=4),
    Column(field="not_run", header="not run", drop=5),
]


def _sentence(found: "Sequence[Standing]") -> str:
    if len(found) == 1:
        return (
            "A submission alone is the fastest on all that it reached: its score says what share "
            "that is, and nothing of speed."
        )
    first = [standing for standing in found if standing.rank == 1]
    names = " and ".join(standing.submission for standing in first)
    come = "comes" if len(first) == 1 else "come"
    sentence = f"{names} {come} first with {wording.score(first[0].score)}"
    level = sum(standing.rank_low == 1 for standing in found) - len(first)
    if level > 0:
        sentence += f"; {level} more may be as good, by what the studies show"
    return f"{sentence}. Scores hold for this pool only."
