"""The one place where rows become a terminal table, JSON, CSV or Markdown.

JSON and CSV carry every field as it is, in the units of its name; the terminal and Markdown
carry chosen columns, rounded, with the unit in the header.
"""

import csv
import datetime
import decimal
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import click
import msgspec

Row = Mapping[str, Any]
Format = Literal["table", "json", "csv", "md"]

MISSING = "–"
MIB = 1 << 20
_GAP = 2  # characters between columns
_LONGEST_WORD = 20  # characters; a longer one may be broken


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column for people: the field it shows, its header with the unit, its rounding."""

    field: str
    header: str
    text: Callable[[Any], str] | None = None  # None: as `plain`
    number: bool = False  # aligned right
    whole: bool = False  # never wrapped: a name to copy
    drop: int = 0  # where the terminal is too narrow, the highest goes first; 0 stays


def format_option(*formats: Format) -> Callable[[Any], Any]:
    """Return the option --format with the formats a command knows."""
    return click.option(
        "--format",
        "form",
        type=click.Choice(formats),
        default="table",
        show_default=True,
        help="How to print it; all but the table carry every field, unrounded.",
    )


def print_rows(rows: Sequence[Row], columns: Sequence[Column], form: Format) -> None:
    """Print rows on stdout."""
    if form == "json":
        print_json(rows)
    elif form == "csv":
        click.echo(_csv(rows, [column.field for column in columns]), nl=False)
    elif form == "md":
        click.echo(_markdown(rows, columns))
    else:
        _print_table(rows, columns)


def print_frame(rows: Sequence[Row], names: Sequence[str], form: Format) -> None:
    """Print the answer to a query nobody chose columns for; too wide, each row is a list."""
    columns = [
        Column(field=name, header=name, number=_numeric(row[name] for row in rows))
        for name in names
    ]
    if form == "table" and rows and _natural_width(rows, columns) > _width():
        for position, row in enumerate(rows, 1):
            click.echo(f"row {position}")
            print_fields((column.header, plain(row[column.field])) for column in columns)
    else:
        print_rows(rows, columns, form)


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Print names and values in two columns."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields:
        table.add_row(_verbatim(name), _verbatim(value))
    _print(table)


def print_json(content: object) -> None:
    """Print one JSON value; what is not a number is null."""
    text = msgspec.json.encode(_finite(content), enc_hook=str)
    click.echo(msgspec.json.format(text, indent=2).decode())


def plain(value: object) -> str:
    """Return a value for a table where nothing is known of its meaning."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime.datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value)
    return str(value)


def significant(value: float | None) -> str:
    """Return three significant digits, never fewer than the whole part, no exponent."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(decimals, 9)}f}"


def count(value: float | None) -> str:
    """Return a count with its thousands apart."""
    return MISSING if value is None else f"{value:,.0f}"


def mebibytes(value: float | None) -> str:
    """Return bytes in MiB."""
    return MISSING if value is None else f"{value / MIB:,.0f}"


def moment(value: datetime.datetime | None) -> str:
    """Return a moment to the minute, in local time."""
    return MISSING if value is None else value.astimezone().strftime("%Y-%m-%d %H:%M")


def point(hyperparameters: Mapping[str, object]) -> str:
    """Return a hyperparameter point in words."""
    return ", ".join(f"{name}={plain(value)}" for name, value in hyperparameters.items())


def _print_table(rows: Sequence[Row], columns: Sequence[Column]) -> None:
    from rich import box
    from rich.table import Table

    shown = _fitting(rows, columns)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    # Left to itself, rich breaks words of one column to leave another wide; told the least
    # widths, it cuts what then is too wide.
    for column, width in zip(shown, _widths(rows, shown), strict=True):
        table.add_column(
            _verbatim(column.header),
            justify="right" if column.number else "left",
            no_wrap=column.number or column.whole,
            overflow="fold",
            width=width,
        )
    for row in rows:
        table.add_row(*(_verbatim(_cell(row, column)) for column in shown))
    _print(table)
    dropped = [column.header for column in columns if column not in shown]
    if dropped:
        click.echo(f"Too narrow for: {'; '.join(dropped)}. --format json has every column.")


def _fitting(rows: Sequence[Row], columns: Sequence[Column]) -> list[Column]:
    """Return the columns less those that must go for the others to fit the terminal."""
    shown = list(columns)
    while sum(_GAP + _least_width(rows, column) for column in shown) - _GAP > _width():
        last = max(shown, key=lambda column: column.drop)
        if last.drop == 0:
            break
        shown.remove(last)
    return shown


def _widths(rows: Sequence[Row], columns: Sequence[Column]) -> list[int]:
    """Share the terminal out: each column its least width, the rest to whose text is tallest."""
    widths = [_least_width(rows, column) for column in columns]
    natural = [
        max((len(line) for text in _texts(rows, column) for line in text.split("\n")), default=0)
        for column in columns
    ]
    free = _width() - sum(widths) - _GAP * (len(columns) - 1)
    for _ in range(free):
        lines = [full / max(width, 1) for full, width in zip(natural, widths, strict=True)]
        if max(lines) <= 1:
            break
        widths[lines.index(max(lines))] += 1
    return widths


def _texts(rows: Sequence[Row], column: Column) -> list[str]:
    return [column.header, *(_cell(row, column) for row in rows)]


def _least_width(rows: Sequence[Row], column: Column) -> int:
    texts = _texts(rows, column)
    if column.number or column.whole:
        return max(len(text) for text in texts)
    words = [len(word) for text in texts for word in text.split()]
    return min(max(words, default=0), _LONGEST_WORD)


def _print(renderable: Any) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    with console.capture() as captured:
        console.print(renderable)
    # rich pads every line to the terminal's width, which spoils copies and diffs.
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()), color=True)


def _width() -> int:
    from rich.console import Console

    return Console().width


def _verbatim(text: str) -> Any:
    from rich.text import Text

    return Text(text)  # [brackets] in data are no markup


def _natural_width(rows: Sequence[Row], columns: Sequence[Column]) -> int:
    return sum(
        _GAP + max(len(column.header), *(len(_cell(row, column)) for row in rows))
        for column in columns
    )


def _cell(row: Row, column: Column) -> str:
    return (column.text or plain)(row[column.field])


def _numeric(values: Iterable[object]) -> bool:
    present = [value for value in values if value is not None]
    return bool(present) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in present
    )


def _csv(rows: Sequence[Row], fields: Sequence[str]) -> str:
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


def _markdown(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    lines = [[column.header for column in columns]]
    lines.append(["---:" if column.number else "---" for column in columns])
    lines += [[_cell(row, column) for column in columns] for row in rows]
    return "\n".join("| " + " | ".join(_one_line(cell) for cell in line) + " |" for line in lines)


def _one_line(cell: str) -> str:
    return " ".join(cell.split()).replace("|", "\\|")


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
