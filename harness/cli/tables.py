"""Prints rows as a terminal table, JSON, CSV or Markdown.

JSON and CSV carry every field as it is, in the units of its name; the terminal and Markdown
carry chosen columns, rounded, with the unit in the header.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import click

from harness.table_text import Column, Row, cell, csv_text, json_text, markdown
from harness.wording import plain

Format = Literal["table", "json", "csv", "md"]
_GAP = 2  # characters between columns
_LONGEST_WORD = 20  # characters; a longer one may be broken


def format_option(*formats: Format) -> Callable[[Any], Any]:
    """Return the option --format with the formats a command knows."""
    whole = [form for form in formats if form in ("json", "csv")]
    carry = "carry" if len(whole) > 1 else "carries"
    return click.option(
        "--format",
        "form",
        type=click.Choice(formats),
        default="table",
        show_default=True,
        help=f"How to print it; {' and '.join(whole)} {carry} every field, unrounded.",
    )


def print_rows(rows: Sequence[Row], columns: Sequence[Column], form: Format) -> None:
    """Print rows on stdout."""
    if form == "json":
        print_json(rows)
    elif form == "csv":
        click.echo(csv_text(rows, [column.field for column in columns]), nl=False)
    elif form == "md":
        click.echo(markdown(rows, columns))
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
    click.echo(json_text(content))


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
        table.add_row(*(_verbatim(cell(row, column)) for column in shown))
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
    return [column.header, *(cell(row, column) for row in rows)]


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
        _GAP + max(len(column.header), *(len(cell(row, column)) for row in rows))
        for column in columns
    )


def _numeric(values: Iterable[object]) -> bool:
    present = [value for value in values if value is not None]
    return bool(present) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in present
    )
