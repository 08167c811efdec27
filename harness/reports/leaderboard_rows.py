"""A row of the leaderboard as people read it: rounded, with what tells it from its namesakes."""

from collections.abc import Mapping, Sequence
from typing import Any

from harness.reports import ranked_rows
from harness.table_text import Column
from harness.wording import MISSING, count, mebibytes, significant

Row = Mapping[str, Any]

COLUMNS = [
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


def for_people(row: Row, group: Sequence[Row]) -> dict[str, Any]:
    """Return the cells of a row among those that it is ranked with; hyperparameters are objects."""
    return {
        **ranked_rows.rank(row, group),
        **ranked_rows.name(row, group),
        "reached": f"{row['reached']}/{row['runs']}",
        "time": _time(row),
        "interval": _interval(row),
        "range": _range(row),
        "normalised_time": _figure(significant(row["normalised_time"])),
        "steps": _figure(count(row["steps_to_target"])),
        "examples": _figure(count(row["examples_to_target"])),
        "passes": _figure(count(row["model_passes_to_target"])),
        "memory": _figure(mebibytes(row["memory_bytes"])),
        "energy": _figure(significant(row["energy_j"])),
        "front": "front" if row["pareto_front"] else "",
        "left_out": _left_out(row),
    }


def _figure(text: str) -> str:
    return "" if text == MISSING else text


def _time(row: Row) -> str:
    if row["time_s"] is not None:
        return significant(row["time_s"])
    return f"> {significant(row['budget_s'])}" if row["runs"] else MISSING


def _interval(row: Row) -> str:
    if row["time_low_s"] is None:
        return ""
    low = significant(row["time_low_s"])
    if row["time_high_s"] is None:
        return f"≥ {low}"
    return f"{low}–{significant(row['time_high_s'])}"


def _range(row: Row) -> str:
    if row["reached"] < 2:
        return ""
    return f"{significant(row['fastest_s'])}–{significant(row['slowest_s'])}"


def _left_out(row: Row) -> str:
    parts = [(row["tainted_left_out"], "tainted"), (row["unfinished_left_out"], "unfinished")]
    return ", ".join(f"{number} {what}" for number, what in parts if number)
