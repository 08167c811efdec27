"""Rows as CSV, Markdown or JSON text.

JSON and CSV carry every field as it is, in the units of its name; Markdown carries chosen
columns, rounded, with the unit in the header.
"""

import csv
import datetime
import decimal
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from harness.wording import plain

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column for people: the field it shows, its header with the unit, its rounding."""

    field: str
    header: str
    text: Callable[[Any], str] | None = None  # None: as `plain`
    number: bool = False  # aligned right
    whole: bool = False  # never wrapped: a name to copy
    drop: int = 0  # where the terminal is too narrow, the highest goes first; 0 stays


def filled(columns: Sequence[Column], rows: Sequence[Row]) -> list[Column]:
    """Return the columns in which some row has something."""
    return [column for column in columns if any(row[column.field] for row in rows)]


def csv_text(rows: Sequence[Row], fields: Sequence[str]) -> str:
    """Return rows as CSV; `fields` names the columns where there is no row."""
    stream = io.StringIO()
    names = list(rows[0]) if rows else list(fields)
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_csv_cell(row[name]) for name in names] for row in rows)
    return stream.getvalue()


def _csv_cell(value: object) -> object:
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, sort_keys=True, default=str)
    if isinstance(value, bool):
        return plain(value)
    return value.isoformat() if isinstance(value, datetime.datetime) else value


def markdown(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """Return rows as a Markdown table; text of the record can be no markup in it."""
    lines = [[column.header for column in columns]]
    lines.append(["---:" if column.number else "---" for column in columns])
    lines += [[cell(row, column) for column in columns] for row in rows]
    return "\n".join("| " + " | ".join(_one_line(text) for text in line) + " |" for line in lines)


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def cell(row: Row, column: Column) -> str:
    """Return what a column shows of a row."""
    return (column.text or plain)(row[column.field])


def json_text(content: object) -> str:
    """Return one indented JSON value; what is not a number is null."""
    text = msgspec.json.encode(_finite(content), enc_hook=str)
    return msgspec.json.format(text, indent=2).decode()


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, decimal.Decimal):
        return _finite(float(value))
    if isinstance(value, Mapping):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
