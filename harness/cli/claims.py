"""`bench claims`: what papers claim, and what was measured of it here."""

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from harness import wording
from harness.cli import EXIT_INTERRUPTED, EXIT_OK, EXIT_RUN_ENDED_OTHERWISE, tables
from harness.cli.parameters import CommandGroup, SubmissionName, data_dir_option, results_option
from harness.cli.run import check_writable, orderly_interrupt
from harness.cli.tables import Format, format_option
from harness.errors import UsageError
from harness.home import results_home
from harness.table_text import Column
from harness.wording import claim_in_words

if TYPE_CHECKING:
    from harness.judging.ledger import Entry
    from harness.sweeps.claims import Trial
    from harness.sweeps.contest import Result
    from harness.sweeps.jobs import Slot

NOT_MEASURED = "not measured yet"
PAIRS = 8
TRIALS = 5


@click.group(cls=CommandGroup)
def claims() -> None:
    """What papers claim, measured here: the ledger.

    A submission's card states its claim as a ratio: what it needs over what its baseline
    needs. The ledger, claims.json in the results folder, holds what was measured last.
    """


@claims.command("list")
@format_option("table", "json", "csv", "md")
@results_option
def list_claims(form: Format, results: str | None) -> None:
    """List every claim and its verdict.

    Example: bench claims list --format md
    """
    from harness.judging.ledger import ledger_path, read_ledger

    rows = _rows(read_ledger(ledger_path(results_home(results))))
    known = [one for one in _COLUMNS if any(row[one.field] is not None for row in rows)]
    tables.print_rows(rows, _COLUMNS if form == "csv" else known, form)


@claims.command("show")
@click.argument("submission", type=SubmissionName())
@format_option("table", "json")
@results_option
def show_claim(submission: str, form: Format, results: str | None) -> None:
    """Show a claim in its own words, and how it was measured.

    Example: bench claims show lion
    """
    from harness.judging.ledger import ledger_path, read_ledger
    from harness.sweeps.claims import claimants

    ((card, claim),) = claimants([submission])
    found = [
        entry
        for entry in read_ledger(ledger_path(results_home(results)))
        if entry.submission == card.name
    ]
    if form == "json":
        tables.print_json(
            {
                "claim": msgspec.to_builtins(claim),
                "measured": [msgspec.to_builtins(entry) for entry in found],
            }
        )
        return
    tables.print_fields(
        [
            ("submission", card.name),
            ("claim", claim_in_words(msgspec.to_builtins(claim))),
            ("in words", claim.statement),
            ("source", claim.source),
        ]
    )
    for entry in found:
        click.echo()
        tables.print_fields(_fields(entry))
    if not found:
        click.echo(f"\nNot measured yet: bench claims run {card.name}")


@claims.command("run")
@click.argument("submissions", nargs=-1, type=SubmissionName())
@click.option("--all", "every", is_flag=True, help="Every claim.")
@click.option(
    "--trials", type=click.IntRange(1, 1000), default=TRIALS, show_default=True, metavar="K",
    help="Points that each side may try, where there is something to tune; 1: the defaults.",
)  # fmt: skip
@click.option("--pairs", type=click.IntRange(2, 1000), default=PAIRS, show_default=True,
    metavar="N", help="Pairs of the best points.",
)  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--dry-run", is_flag=True, help="Show what would run, and how long it would take.")
@data_dir_option
@results_option
def run_claims(
    submissions: tuple[str, ...],
    every: bool,
    trials: int,
    pairs: int,
    device: str,
    dry_run: bool,
    results: str | None,
) -> int:
    """Measure claims: tune both sides alike, then run their best points in interleaved pairs.

    Each side tries as many points, its first one included, with one seed each; the pairs have
    seeds of their own. Finished runs are not repeated: the same command goes on where it
    stopped, and more --pairs add to what is there. A tainted pair is made again, three times
    at most.

    \b
    Examples:
      bench claims run lion
      bench claims run --all --dry-run

    Exit codes: 0 every claim was judged, whatever the verdict; 2 usage; 4 a run failed;
    130 interrupted.
    """  # noqa: D301 - click reads the backspace
    from harness import catalogue
    from harness.cli.sweep_display import carry_out
    from harness.data_files import require
    from harness.sweeps.claims import claimants, trial_of
    from harness.sweeps.local import LocalExecutor, local_slots

    if every == bool(submissions):
        raise UsageError(
            "Whose claims are to be measured? Name submissions or give --all, one of the two."
        )
    chosen = claimants(submissions)
    home = results_home(results)
    check_writable(home)
    require(catalogue.workload(claim.workload).card for _, claim in chosen)
    slots = local_slots(device, 1)
    tried = [trial_of(card, claim, trials, slots[0], home) for card, claim in chosen]
    planned = {job.identity: job for one in tried for job in (*one.own.jobs, *one.other.jobs)}
    if planned:
        ended = carry_out(list(planned.values()), LocalExecutor(slots), home, dry_run=dry_run)
        if ended not in (None, EXIT_OK):
            return ended or EXIT_OK
    if dry_run:
        click.echo(f"Then {pairs} pairs for each of {len(tried)} claims, at the best points.")
        return EXIT_OK
    failed = 0
    for one in tried:
        code = _measure(one, pairs, slots, home)
        if code == EXIT_INTERRUPTED:
            return code
        failed += code != EXIT_OK
    return EXIT_RUN_ENDED_OTHERWISE if failed else EXIT_OK


def _measure(one: "Trial", pairs: int, slots: "list[Slot]", home: Path) -> int:
    """Make a claim's pairs, judge it and put it into the ledger."""
    from harness.cli.compare_display import CompareDisplay
    from harness.judging.ledger import ledger_path, write_entry
    from harness.sweeps.claims import contest_of, match_of
    from harness.sweeps.local import LocalExecutor

    name = one.card.name
    if one.own.best(home) is None or one.other.best(home) is None:
        click.echo(
            f"{name}: not judged, since runs that tune a side failed. `bench list runs` names "
            "them; the same command tries them again.",
            err=True,
        )
        return EXIT_RUN_ENDED_OTHERWISE
    contest = contest_of(match_of(one, slots[0], home), pairs, home)
    display = CompareDisplay(contest, contest.terms)
    with orderly_interrupt() as interrupt, display:
        (found,) = contest.run(
            LocalExecutor(slots), display, lambda: interrupt.asked() or bool(display.refused)
        )
    if interrupt.asked():
        click.echo("Interrupted: the same command goes on.", err=True)
        return EXIT_INTERRUPTED
    for job, reason in display.refused:
        click.echo(f"• {job.submission} on {job.workload}, seed {job.seed}: {reason}", err=True)
    if not found.counted:
        click.echo(f"{name}: not judged, since no pair counts.", err=True)
        return EXIT_RUN_ENDED_OTHERWISE
    entry = _entry(one, found, home)
    write_entry(ledger_path(home), entry)
    click.echo(_sentence(entry))
    return EXIT_RUN_ENDED_OTHERWISE if display.refused else EXIT_OK


def _entry(one: "Trial", found: "Result", home: Path) -> "Entry":
    from harness.judging.ledger import Entry, Side
    from harness.records import index
    from harness.sweeps.claims import judgement

    judged = judgement(one.claim, found)
    run_ids = tuple(run.run_id for pair in found.counted for run in (pair.a, pair.b))
    commits = index.query(home, f"SELECT git_commit FROM runs WHERE run_id = '{run_ids[0]}'")  # noqa: S608 - our own name
    match = found.match
    own, other = (
        Side(
            submission=plan.resolved.name,
            source_sha256=plan.resolved.source_sha256,
            hyperparameters=plan.resolved.hyperparameters,
            trials=len(side.points),
        )
        for plan, side in ((match.a, one.own), (match.b, one.other))
    )
    return Entry(
        submission=one.card.name,
        metric=one.claim.metric,
        baseline=one.claim.baseline,
        workload=match.card.name,
        workload_version=match.card.version,
        claimed=one.claim.ratio,
        statement=one.claim.statement,
        source=one.claim.source,
        machine_class=match.a.machine_class,
        measured_on=datetime.datetime.now(datetime.UTC).date().isoformat(),
        git_commit=commits["git_commit"][0],
        own=own,
        other=other,
        **dataclasses.asdict(judged),
        left_out=len(found.left_out),
        run_ids=run_ids,
    )


def _rows(entries: "Sequence[Entry]") -> list[dict[str, Any]]:
    """Return a row for every measurement, and for every claim without one."""
    from harness.sweeps.claims import claimants

    rows = []
    for card, claim in claimants(()):
        stated = msgspec.to_builtins(claim)
        base = {
            "submission": card.name,
            "claim": claim_in_words(stated),
            "metric": claim.metric,
            "baseline": claim.baseline,
            "workload": claim.workload,
            "claimed": claim.ratio,
        }
        measured = [one for one in entries if one.submission == card.name]
        rows += [base | _measured(entry) for entry in measured] or [base | _UNMEASURED]
    return rows


def _measured(entry: "Entry") -> dict[str, Any]:
    found = msgspec.to_builtins(entry)
    fields = {name: found[name] for name in _UNMEASURED if name in found}
    return fields | {
        "claimed": entry.claimed,
        "workload": entry.workload,
        "measured": _figures(entry),
        "trials": f"{entry.own.trials} : {entry.other.trials}",
        "efforts": [entry.own.trials, entry.other.trials],
    }


_UNMEASURED: dict[str, Any] = {
    "measured": None,
    "ratio": None,
    "low": None,
    "high": None,
    "pairs": None,
    "trials": None,
    "efforts": None,
    "missed": None,
    "baseline_missed": None,
    "left_out": None,
    "workload_version": None,
    "machine_class": None,
    "measured_on": None,
    "verdict": NOT_MEASURED,
    "reason": None,
}

_COLUMNS = [
    Column(field="submission", header="submission", whole=True),
    Column(field="claim", header="claim"),
    Column(field="measured", header="measured (95 %)"),
    Column(field="pairs", header="pairs", number=True, drop=2),
    Column(field="trials", header="trials", number=True, drop=3),
    Column(field="verdict", header="verdict"),
    Column(field="reason", header="why", drop=1),
]


def _figures(entry: "Entry") -> str:
    from harness.cli.comparison_words import with_limits

    return with_limits(entry.ratio, entry.low, entry.high) or wording.MISSING


def _sentence(entry: "Entry") -> str:
    metric = entry.metric.replace("_", " ")
    measured = _figures(entry)
    return (
        f"{entry.submission}: {metric} {measured} × {entry.baseline} on {entry.workload}, "
        f"claimed {entry.claimed:g}; {entry.verdict} ({entry.reason})."
    )


def _fields(entry: "Entry") -> list[tuple[str, str]]:
    def side(name: str, found: Mapping[str, Any], trials: int) -> tuple[str, str]:
        point = ", ".join(f"{key}={value}" for key, value in found.items()) or "no settings"
        tried = "not tuned" if trials == 1 else f"the best of {trials} points"
        return name, f"{point} ({tried})"

    return [
        ("verdict", f"{entry.verdict}: {entry.reason}"),
        ("measured", f"{_figures(entry)} × {entry.baseline}, {entry.pairs} pairs"),
        (
            "missed",
            f"{entry.missed} of {entry.submission}, {entry.baseline_missed} of {entry.baseline}, "
            f"both in {entry.untelling} pairs more; {entry.left_out} pairs left out",
        ),
        side(entry.own.submission, entry.own.hyperparameters, entry.own.trials),
        side(f"{entry.baseline} (baseline)", entry.other.hyperparameters, entry.other.trials),
        ("workload", f"{entry.workload} version {entry.workload_version}"),
        ("machine class", entry.machine_class),
        ("measured on", f"{entry.measured_on}, commit {entry.git_commit or 'unknown'}"),
    ]
