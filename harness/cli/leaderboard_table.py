"""The leaderboard's table of one workload, for people."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import click

from harness.cli import ranked_rows, tables
from harness.cli.tables import Column, Format
from harness.judging.axes import AXES
from harness.spec import ClockKind

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
    rows = [_for_people(row, group) for row in group]
    columns = [
        column for column in _columns(axis, pareto) if any(row[column.field] for row in rows)
    ]
    click.echo(f"### {title}\n" if form == "md" else title)
    tables.print_rows(rows, ranked_rows.headed(columns, group), form)
    notes = [*ranked_rows.about_ranks(group), *ranked_rows.about_few_runs(group)]
    notes += _about_front(group) if pareto else []
    click.echo("\n" + "\n".join([_sentence(group, clock, axis), *notes]) + "\n")


def _for_people(row: Row, group: Sequence[Row]) -> dict[str, Any]:
    return {
        **ranked_rows.rank(row, group),
        **ranked_rows.name(row, group),
        "reached": f"{row['reached']}/{row['runs']}",
        "time": _time(row),
        "interval": _interval(row),
        "range": _range(row),
        "normalised_time": _figure(tables.significant(row["normalised_time"])),
        "steps": _figure(tables.count(row["steps_to_target"])),
        "examples": _figure(tables.count(row["examples_to_target"])),
        "passes": _figure(tables.count(row["model_passes_to_target"])),
        "memory": _figure(tables.mebibytes(row["memory_bytes"])),
        "energy": _figure(tables.significant(row["energy_j"])),
        "front": "front" if row["pareto_front"] else "",
        "left_out": _left_out(row),
    }


_COLUMNS = [
    *ranked_rows.RANK_COLUMNS,
    *ranked_rows.NAME_COLUMNS,
    Column(field="reached", header="reached", number=True),
    Column(field="time", header="time, s", number=True),
    Column(field="interval", header="95 %, s", number=True, drop=3),
    Column(field="range", header="range, s", number=True, drop=6),
    Column(field="normalised_time", header="paces", number=True, drop=2),
    Column(field="steps", header="steps", number=True, drop=5),
    Column(field="examples", header="examples", number=True, drop=7),
    Column(field="passes", header="passes", number=True, drop=4),
    Column(field="memory", header="MiB", number=True, drop=1),
    Column(field="energy", header="J", number=True, drop=1),
    Column(field="front", header="Pareto"),
    Column(field="left_out", header="left out"),
]


def _columns(axis: str, pareto: bool) -> list[Column]:
    """Return the columns; what a table is about is never dropped for want of width."""
    about = {_FIELDS[axis]} | ({"memory", "energy"} if pareto else set())
    return [
        dataclasses.replace(column, drop=0) if column.field in about else column
        for column in _COLUMNS
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


def _figure(text: str) -> str:
    return "" if text == tables.MISSING else text


def _time(row: Row) -> str:
    if row["time_s"] is not None:
        return tables.significant(row["time_s"])
    return f"> {tables.significant(row['budget_s'])}" if row["runs"] else tables.MISSING


def _interval(row: Row) -> str:
    if row["time_low_s"] is None:
        return ""
    low = tables.significant(row["time_low_s"])
    if row["time_high_s"] is None:
        return f"≥ {low}"
    return f"{low}–{tables.significant(row['time_high_s'])}"


def _range(row: Row) -> str:
    if row["reached"] < 2:
        return ""
    return f"{tables.significant(row['fastest_s'])}–{tables.significant(row['slowest_s'])}"


def _left_out(row: Row) -> str:
    parts = [(row["tainted_left_out"], "tainted"), (row["unfinished_left_out"], "unfinished")]
    return ", ".join(f"{number} {what}" for number, what in parts if number)


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
        other = others[0]["submission"]
        if axis == "time":
            ratio = tables.significant(others[0][field] / first[field])
            sentence += f", {ratio} times faster than {other}"
        else:
            ratio = tables.significant(first[field] / others[0][field])
            sentence += f", {ratio} times {other}'s"
        if ranked_rows.shown_apart(first, others[0]) is False:
            sentence += "; so few runs do not show that it is"
    return f"{sentence}."


def _amount(row: Row, axis: str) -> str:
    figure = row[AXES[axis].field]
    if axis == "memory":
        return f"{tables.mebibytes(figure)} MiB"
    if axis in _COUNTS:
        return tables.count(figure)
    return f"{tables.significant(figure)} {AXES[axis].unit}"


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
