"""`bench leaderboard --score suite`: the score that no other entry moves."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from harness import wording
from harness.cli import tables
from harness.cli.tables import Format
from harness.reports import ranked_rows
from harness.spec import ClockKind
from harness.table_text import Column


def print_suite_scores(
    home: Path, workloads: Sequence[str], form: Format, clock: ClockKind, files: str | None
) -> None:
    """Print the scores over some workloads, a table a machine class and tuning effort.

    Raises:
        UsageError: a workload that is not there.
    """
    from harness import catalogue
    from harness.judging.suite_ranking import RANKED_WITHIN, suite_scores

    versions = {name: catalogue.workload(name).card.version for name in workloads}
    frame = suite_scores(home, versions, clock, files)
    rows = [_with_point(row) for row in frame.to_dicts()]
    if form in ("json", "csv"):
        tables.print_rows(rows, [Column(field=name, header=name) for name in frame.columns], form)
        return
    if not rows:
        click.echo(f"Nothing is measured on {_listed(workloads)} in {home} yet.")
    for place in dict.fromkeys(ranked_rows.place(row, RANKED_WITHIN) for row in rows):
        _print_group([row for row in rows if ranked_rows.place(row, RANKED_WITHIN) == place], form)


def _with_point(row: dict[str, Any]) -> dict[str, Any]:
    point = row["hyperparameters"]
    return row | {"hyperparameters": None if point is None else json.loads(point)}


def _print_group(group: Sequence[dict[str, Any]], form: Format) -> None:
    first = group[0]
    title = (
        f"score over {first['workloads']} workload{'s' if first['workloads'] > 1 else ''} · "
        f"tuning effort: {first['tuning_effort']} · {first['machine_class']}"
    )
    click.echo(f"### {title}\n" if form == "md" else title)
    rows = [_for_people(row, group) for row in group]
    shown = [column for column in _COLUMNS if any(row[column.field] for row in rows)]
    tables.print_rows(rows, ranked_rows.headed(shown, group), form)
    notes = [_MEANING] if any(row["score"] is not None for row in group) else []
    notes += [*ranked_rows.about_ranks(group), *_about_intervals(group)]
    click.echo("\n".join(["", *notes, ""]) if notes else "")


_MEANING = """\
1: four times as fast as the reference on every workload, 0.5: as fast, 0: a quarter.
It depends on no other entry."""


def _for_people(row: dict[str, Any], group: Sequence[dict[str, Any]]) -> dict[str, str]:
    scored = row["score"] is not None
    return {
        **ranked_rows.rank(row, group),
        **ranked_rows.name(row, group),
        "score": f"{row['score']:.4f}" if scored else wording.MISSING,
        "interval": ""
        if row["score_low"] is None
        else f"{row['score_low']:.3f}–{row['score_high']:.3f}",
        "runs": str(row["fewest_runs"]),
        "why_no_score": row["why_no_score"] or "",
    }


_COLUMNS = [
    *ranked_rows.RANK_COLUMNS,
    *ranked_rows.NAME_COLUMNS,
    Column(field="score", header="score", number=True),
    Column(field="interval", header="95 %", number=True),
    Column(field="runs", header="runs ≥", number=True, drop=1),
    Column(field="why_no_score", header="no score: why"),
]


def _about_intervals(group: Sequence[dict[str, Any]]) -> list[str]:
    return [
        f"No interval for {row['submission']}: {row['why_no_interval']}."
        for row in group
        if row["why_no_interval"]
    ]


def _listed(workloads: Sequence[str]) -> str:
    few = ", ".join(workloads[:3])
    return few if len(workloads) <= 3 else f"{few} and {len(workloads) - 3} more"
