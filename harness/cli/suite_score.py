"""`bench leaderboard --score suite`: the score that no other entry moves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from harness import wording
from harness.cli import tables
from harness.cli.tables import Format
from harness.reports import ranked_rows
from harness.spec import ClockKind
from harness.table_text import Column, filled


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
    rows = [ranked_rows.with_point(row) for row in frame.to_dicts()]
    if form in ("json", "csv"):
        tables.print_rows(rows, [Column(field=name, header=name) for name in frame.columns], form)
        return
    if not rows:
        click.echo(f"Nothing is measured on {_listed(workloads)} in {home} yet.")
    for group in ranked_rows.groups(rows, RANKED_WITHIN):
        _print_group(group, form)


def _print_group(group: Sequence[dict[str, Any]], form: Format) -> None:
    first = group[0]
    title = (
        f"score over {wording.counted(first['workloads'], 'workload')} · "
        f"tuning effort: {first['tuning_effort']} · {first['machine_class']}"
    )
    click.echo(f"### {title}\n" if form == "md" else title)
    rows = [_for_people(row, group) for row in group]
    shown = filled(_COLUMNS, rows)
    tables.print_rows(rows, ranked_rows.headed(shown, group), form)
    notes = [_MEANING] if any(row["score"] is not None for row in group) else []
    notes += [*ranked_rows.about_ranks(group), *_about_intervals(group)]
    click.echo("\n".join(["", *notes, ""]) if notes else "")


_MEANING = """\
1: four times as fast as the reference on every workload, 0.5: as fast, 0: a quarter.
It depends on no other entry."""


def _for_people(row: dict[str, Any], group: Sequence[dict[str, Any]]) -> dict[str, str]:
    return {
        **ranked_rows.rank(row, group),
        **ranked_rows.name(row, group),
        "score": wording.score(row["score"]),
        "interval": wording.score_interval(row["score_low"], row["score_high"]),
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
