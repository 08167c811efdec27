"""`bench list`: what there is to run, and what was run."""

import datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from harness import catalogue, wording
from harness.cli import tables
from harness.cli.parameters import CommandGroup, results_option
from harness.cli.tables import Format
from harness.home import results_home
from harness.suites import suites as known_suites
from harness.table_text import Column
from harness.wording import claim_in_words

DEFAULT_RUNS = 20

_format_option = tables.format_option("table", "json")


@click.group(cls=CommandGroup)
def listing() -> None:
    """List submissions, workloads, suites or runs."""


@listing.command()
@_format_option
def submissions(form: Format) -> None:
    """List the submissions: what each puts in place of a part of the reference recipe."""
    cards = [entry.card for entry in catalogue.submissions().values()]
    rows = [
        {
            "name": card.name,
            "kind": card.kind,
            "title": card.title,
            "paper": None if card.paper is None else msgspec.to_builtins(card.paper),
            "claim": None if card.claim is None else msgspec.to_builtins(card.claim),
            "hyperparameters": msgspec.to_builtins(card.hyperparameters),
            "tuned": msgspec.to_builtins(card.tuned),
        }
        for card in cards
    ]
    columns = [
        Column(field="name", header="submission", whole=True),
        Column(field="kind", header="kind"),
        Column(field="title", header="title"),
        Column(field="claim", header="claim", text=claim_in_words),
    ]
    tables.print_rows(rows, columns, form)


@listing.command()
@_format_option
def workloads(form: Format) -> None:
    """List the workloads: dataset, model, metric, target and budget, frozen on a card."""
    cards = [entry.card for entry in catalogue.workloads().values()]
    rows = [
        {
            "workload": card.name,
            "tier": card.tier,
            "family": card.family,
            "modality": card.modality,
            "metric": card.metric.name,
            "direction": card.metric.direction,
            "target": card.metric.target,
            "version": card.version,
            "parameters": card.parameters,
            "reference_seconds": card.reference_seconds,
            "title": card.title,
            "suites": list(card.suites),
            "variant_of": card.variant_of,
        }
        for card in cards
    ]
    variants = sum(row["variant_of"] is not None for row in rows)
    columns = [
        Column(field="workload", header="workload", whole=True),
        Column(field="version", header="v", number=True, drop=2),
        Column(field="tier", header="tier"),
        Column(field="modality", header="modality", drop=1),
        Column(field="goal", header="target"),
        Column(field="parameters", header="parameters", text=wording.count, number=True),
        Column(field="reference_seconds", header="ref., s", text=wording.significant, number=True),
    ]
    if form == "table":
        rows = [row for row in rows if row["variant_of"] is None]
        for row in rows:
            sign = "≥" if row["direction"] == "maximise" else "≤"
            row["goal"] = f"{row['metric']} {sign} {row['target']:g}"
    tables.print_rows(rows, columns, form)
    if form == "table" and variants:
        click.echo(f"{variants} held-out variants are left out; see `bench list suites`.")


@listing.command()
@_format_option
def suites(form: Format) -> None:
    """List the suites, which `-w @NAME` runs whole."""
    rows = [
        {
            "suite": suite.name,
            "title": suite.title,
            "workloads": [card.name for card in suite.workloads],
            "reference_seconds": suite.reference_seconds,
        }
        for suite in known_suites().values()
    ]
    columns = [
        Column(field="suite", header="suite", whole=True),
        Column(field="title", header="title"),
        Column(field="workloads", header="workloads", text=_joined),
        Column(field="reference_seconds", header="ref., s", text=wording.significant, number=True),
    ]
    tables.print_rows(rows, columns, form)


@listing.command()
@_format_option
@results_option
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=DEFAULT_RUNS,
    show_default=True,
    help="How many of the newest to list.",
)
def runs(form: Format, results: str | None, limit: int) -> None:
    """List the runs, the newest first; one that is under way is marked `running`."""
    from harness.cli.run_names import newest_first

    home = results_home(results)
    directories = newest_first(home)
    rows = [_run_row(directory) for directory in directories[:limit]]
    columns = [
        Column(field="run_id", header="run", whole=True),
        Column(field="submission", header="submission", drop=2),  # the ids name these three
        Column(field="workload", header="workload", drop=3),
        Column(field="seed", header="seed", number=True, drop=1),
        Column(field="status", header="outcome", whole=True),
        Column(field="time_to_target_s", header="time, s", text=wording.significant, number=True),
        Column(field="tainted", header="tainted", text=_yes),
    ]
    if form == "table" and not rows:
        click.echo(_no_runs(home))
        return
    tables.print_rows(rows, columns, form)
    if form == "table" and len(directories) > limit:
        click.echo(f"{len(directories) - limit} older ones are left out; see --limit.")


def _run_row(directory: Any) -> dict[str, Any]:
    from harness.records.record import RunRecord, read_run

    row: dict[str, Any] = dict.fromkeys(
        ("run_id", "status", "created_at", *RunRecord.__struct_fields__)
    )
    row["run_id"] = directory.run_id
    live = directory.is_live()  # before the log is read: it may end in between
    try:
        detail = read_run(directory)
    except (OSError, msgspec.MsgspecError, LookupError, TypeError, ValueError) as error:
        return row | {"status": "damaged", "reason": str(error), "tainted": []}
    row |= msgspec.to_builtins(detail.record)
    row["created_at"] = datetime.datetime.fromtimestamp(
        detail.spec.created_unix_ns / 1e9, datetime.UTC
    )
    if live:
        return row | {"status": "running", "outcome": None, "reason": "it is still running"}
    return row | {"status": detail.record.outcome}


def _no_runs(home: Path) -> str:
    return f"No runs in {home}. Time one with `bench run`, or name another folder by --results."


def _joined(names: object) -> str:
    return ", ".join(names) if isinstance(names, list) and names else "–"


def _yes(reasons: list[str]) -> str:
    return "yes" if reasons else ""
