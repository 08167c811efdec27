"""The leaderboard's table of one workload, for people."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import click

from harness import wording
from harness.cli import tables
from harness.cli.tables import Format
from harness.judging.axes import AXES
from harness.reports import leaderboard_rows, ranked_rows
from harness.spec import ClockKind
from harness.table_text import Column, filled

Row = Mapping[str, Any]


def print_group(
    group: Sequence[Row], form: Format, clock: ClockKind, axis: str, *, pareto: bool
) -> None:
    """Print the rows that are ranked together and what follows from them."""
    first = group[0]
    title = (
        f"{first['workload']} v{first['workload_version']} · tuning effort: "
        f"{first['tuning_effort']} · {first['machine_class']}"
    )
    rows = [leaderboard_rows.for_people(row, group) for row in group]
    columns = filled(_columns(axis, pareto), rows)
    click.echo(f"### {title}\n" if form == "md" else title)
    tables.print_rows(rows, ranked_rows.headed(columns, group), form)
    notes = [*ranked_rows.about_ranks(group), *ranked_rows.about_few_runs(group)]
    notes += _about_front(group) if pareto else []
    click.echo("\n" + "\n".join([_sentence(group, clock, axis), *notes]) + "\n")


def _columns(axis: str, pareto: bool) -> list[Column]:
    """Return the columns; what a table is about is never dropped for want of width."""
    about = {_FIELDS[axis]} | ({"memory", "energy"} if pareto else set())
    return [
        dataclasses.replace(column, drop=0) if column.field in about else column
        for column in leaderboard_rows.COLUMNS
        if pareto or column.field != "front"
    ]


_COUNTS = ("steps", "examples", "passes")

_FIELDS = {
    "time": "time",
    "normalised": "normalised_time",
    "steps": "steps",
    "examples": "examples",
    "passes": "passes",
    "memory": "memory",
    "energy": "energy",
}


def _sentence(group: Sequence[Row], clock: ClockKind, axis: str) -> str:
    ranked = [row for row in group if row["rank"] is not None]
    if not ranked:
        if any(row["time_s"] is not None for row in group):
            return f"No row has its {AXES[axis].words} measured: no rank is given."
        return "No submission's median run reached the target: no rank is given."
    first, field = ranked[0], AXES[axis].field
    compiled = (
        ", compilation left out" if clock == "warm" and axis in ("time", "normalised") else ""
    )
    median = f"(median of {first['runs']}{compiled})"
    if axis == "time":
        sentence = f"{first['submission']} reached the target in {_amount(first, axis)} {median}"
    else:
        words = AXES[axis].words
        least = "fewest" if axis in _COUNTS else "least"
        sentence = (
            f"{first['submission']} needed the {least} {words}: {_amount(first, axis)} {median}"
        )
    others = [row for row in ranked if row["submission"] != first["submission"]]
    if others and others[0][field] > first[field] > 0:
        if axis == "time":
            return f"{sentence}, {ranked_rows.ahead_of(first, others[0])}."
        ratio = wording.significant(first[field] / others[0][field])
        sentence += f", {ratio} times {others[0]['submission']}'s"
        if ranked_rows.shown_apart(first, others[0]) is False:
            sentence += "; so few runs do not show that it is"
    return f"{sentence}."


def _amount(row: Row, axis: str) -> str:
    figure = row[AXES[axis].field]
    if axis == "memory":
        return f"{wording.mebibytes(figure)} MiB"
    if axis in _COUNTS:
        return wording.count(figure)
    return f"{wording.significant(figure)} {AXES[axis].unit}"


def _about_front(group: Sequence[Row]) -> list[str]:
    axes = group[0]["pareto_axes"]
    missing = [name for name in ("memory", "energy") if name not in axes]
    front = dict.fromkeys(row["submission"] for row in group if row["pareto_front"])
    if not front:
        return []
    sentence = f"On the Pareto front of {axes}: {', '.join(front)}."
    if missing:
        sentence += f" Not every row has {' and '.join(missing)}, so the front is without it."
    return [sentence]
