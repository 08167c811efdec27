"""What the tables of rankings share: who a row is, its rank, whom it is tied with."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.judging.bootstrap import FEWEST_RUNS
from harness.judging.row_ranks import MOST_ROWS
from harness.table_text import Column
from harness.wording import point, significant

Row = Mapping[str, Any]

RANK_COLUMNS = [
    Column(field="rank", header="#", number=True),
    Column(field="ranks", header="ranks", number=True),
    Column(field="tied", header="tied"),
]
NAME_COLUMNS = [
    Column(field="submission", header="submission"),
    Column(field="differing", header="point"),
    Column(field="source", header="source"),
]

_LEVEL = 1.005  # a ratio below reads 1.00
_NAMED = 4  # rows in a sentence


def with_point(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with its hyperparameters as an object, not as the text that frames hold."""
    text = row["hyperparameters"]
    return row | {"hyperparameters": None if text is None else json.loads(text)}


def groups(rows: Iterable[dict[str, Any]], within: Sequence[str]) -> list[list[dict[str, Any]]]:
    """Return the rows that are ranked together, those alike in the fields `within`, in order."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in within), []).append(row)
    return list(found.values())


def rank(row: Row, group: Sequence[Row]) -> dict[str, str]:
    """Return the rank, its interval, and a letter that tied rows share."""
    low, high = row["rank_low"], row["rank_high"]
    shown = low is not None
    return {
        "rank": "" if row["rank"] is None else str(row["rank"]),
        "ranks": (f"{low}" if low == high else f"{low}–{high}") if shown else "",
        "tied": _letters(row["tied_group"]) if shown and _is_divided(group) else "",
    }


def name(row: Row, group: Sequence[Row]) -> dict[str, str]:
    """Return the submission, and of its point and source what tells it from its namesakes."""
    alike = [other for other in group if other["submission"] == row["submission"]]
    differing = {
        name: value
        for name, value in (row["hyperparameters"] or {}).items()
        if any((other["hyperparameters"] or {}).get(name) != value for other in alike)
    }
    sources = {other["source_sha256"] for other in alike}
    return {
        "submission": row["submission"],
        "differing": point(differing),
        "source": row["source_sha256"][:8] if len(sources) > 1 else "",
    }


def headed(columns: Sequence[Column], group: Sequence[Row]) -> list[Column]:
    """Return the columns, and in the ranks' header among how many they are if not among all."""
    ranked = sum(row["rank"] is not None for row in group)
    known = sum(row["rank_low"] is not None for row in group)
    header = "ranks" if known == ranked else f"ranks of {known}"
    return [
        dataclasses.replace(column, header=header) if column.field == "ranks" else column
        for column in columns
    ]


def about_ranks(group: Sequence[Row]) -> list[str]:
    """Return what a reader has to know of the rank intervals, or why there are none."""
    known = [row for row in group if row["rank_low"] is not None]
    sentences = []
    if known:
        sentences.append(
            f"ranks: where each stands among the {len(known)} rows with 95 % intervals."
        )
        if len({row["tied_group"] for row in known}) == 1:
            sentences.append("All of them are tied, by overlapping intervals.")
        elif _is_divided(group):
            sentences.append("Rows of one letter are tied, by overlapping intervals.")
    elif sum(row["rank"] is not None for row in group) > MOST_ROWS:
        sentences.append(f"No rank intervals among more than {MOST_ROWS} rows.")
    return sentences


def about_few_runs(group: Sequence[Row], runs: str = "runs") -> list[str]:
    """Return which rows have no interval for want of runs."""
    few = [row for row in group if 0 < row[runs] < FEWEST_RUNS]
    if not few:
        return []
    named = [f"{row['submission']} ({row[runs]})" for row in few[:_NAMED]]
    more = f" and {len(few) - _NAMED} more" if len(few) > _NAMED else ""
    return [f"No interval from fewer than {FEWEST_RUNS} runs: {', '.join(named)}{more}."]


def ahead_of(first: Row, other: Row, sample: str = "") -> str:
    """Return how much faster the first row is than another, and whether its runs show that."""
    name, ratio = f"{other['submission']}{sample}", other["time_s"] / first["time_s"]
    if ratio < _LEVEL:
        return f"level with {name}"
    doubt = "; so few runs do not show that it is" if shown_apart(first, other) is False else ""
    return f"{significant(ratio)} times faster than {name}{doubt}"


def shown_apart(first: Row, other: Row) -> bool | None:
    """Return whether the ranks' intervals part two rows, None where one has no interval."""
    if first["rank_low"] is None or other["rank_low"] is None:
        return None
    return bool(first["rank_high"] < other["rank_low"])


def _is_divided(group: Sequence[Row]) -> bool:
    """Return whether there are tied rows and others: else letters tell nothing."""
    groups = [row["tied_group"] for row in group if row["tied_group"] is not None]
    return 1 < len(set(groups)) < len(groups)


def _letters(number: int) -> str:
    """Return for 1, 2, … a, b, … z, aa, ab and so on."""
    letters = ""
    while number:
        number, last = divmod(number - 1, 26)
        letters = chr(ord("a") + last) + letters
    return letters
