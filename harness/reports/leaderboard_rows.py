"""A row of the leaderboard as people read it: rounded, with what tells it from its namesakes."""

from collections.abc import Mapping, Sequence
from typing import Any

from harness.table_text import Column
from harness.wording import MISSING, count, mebibytes, point, significant

COLUMNS = (
    Column(field="rank", header="#", number=True),
    Column(field="submission", header="submission"),
    Column(field="differing", header="point"),
    Column(field="source", header="source"),
    Column(field="reached", header="reached", number=True),
    Column(field="time", header="time, s", number=True),
    Column(field="range", header="range, s", number=True, drop=3),
    Column(field="normalised_time", header="paces", number=True, drop=2),
    Column(field="steps", header="steps", number=True, drop=4),
    Column(field="passes", header="passes", number=True, drop=1),
    Column(field="memory", header="MiB", number=True, drop=1),
    Column(field="energy", header="J", number=True, drop=1),
    Column(field="left_out", header="left out"),
)


def for_people(row: Mapping[str, Any], alike: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the cells of a row, among those of its submission that it is ranked with.

    `hyperparameters` are an object here.
    """
    # Only what tells one row from its namesakes is worth the width.
    differing = {
        name: value
        for name, value in row["hyperparameters"].items()
        if any(other["hyperparameters"].get(name) != value for other in alike)
    }
    source = row["source_sha256"][:8]
    sources = {other["source_sha256"] for other in alike}
    gpu = row["gpu_peak_memory_bytes"]
    return {
        "rank": "" if row["rank"] is None else str(row["rank"]),
        "submission": row["submission"],
        "differing": point(differing),
        "source": source if len(sources) > 1 else "",
        "reached": f"{row['reached']}/{row['runs']}",
        "time": _time(row),
        "range": _range(row),
        "normalised_time": _figure(significant(row["normalised_time"])),
        "steps": _figure(count(row["steps_to_target"])),
        "passes": _figure(count(row["model_passes_to_target"])),
        "memory": _figure(mebibytes(row["peak_memory_bytes"] if gpu is None else gpu)),
        "energy": _figure(significant(row["energy_j"])),
        "left_out": _left_out(row),
    }


def _figure(text: str) -> str:
    return "" if text == MISSING else text


def _time(row: Mapping[str, Any]) -> str:
    if row["time_s"] is not None:
        return significant(row["time_s"])
    return f"> {significant(row['budget_s'])}" if row["runs"] else MISSING


def _range(row: Mapping[str, Any]) -> str:
    if row["reached"] < 2:
        return ""
    return f"{significant(row['fastest_s'])}–{significant(row['slowest_s'])}"


def _left_out(row: Mapping[str, Any]) -> str:
    parts = [(row["tainted_left_out"], "tainted"), (row["unfinished_left_out"], "unfinished")]
    return ", ".join(f"{number} {what}" for number, what in parts if number)
