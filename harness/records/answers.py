"""One reading SQL statement and its answer as a polars frame."""

from typing import TYPE_CHECKING, Any

import duckdb

from harness.errors import UsageError

if TYPE_CHECKING:
    import polars


def answer(connection: duckdb.DuckDBPyConnection, sql: str) -> "polars.DataFrame":
    """Return the answer to one SELECT, WITH, DESCRIBE or EXPLAIN.

    Raises:
        UsageError: the SQL is wrong, is more than one statement or would write.
    """
    import polars

    columns, rows = _fetched(connection, sql)
    # Rows, not Arrow: read as Arrow, DuckDB needs pyarrow or complains of leaks at exit.
    series: dict[str, polars.Series] = {}
    for position, (name, kind) in enumerate(columns):
        cells = [row[position] for row in rows]
        dtype = _polars_type(kind)
        if dtype == polars.String:
            cells = [None if cell is None else str(cell) for cell in cells]
        unique = name
        while unique in series:  # polars wants names to be unique; SQL does not
            unique = f"{name}_{position + 1}" if unique == name else f"{unique}_"
        series[unique] = polars.Series(unique, cells, dtype=dtype, strict=False)
    return polars.DataFrame(list(series.values()))


def rows(connection: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
    """Return the answer as rows of Python's own values; raises as `answer`."""
    return _fetched(connection, sql)[1]


def _fetched(
    connection: duckdb.DuckDBPyConnection, sql: str
) -> tuple[list[tuple[str, str]], list[tuple[Any, ...]]]:
    """Return the columns' names and types, and the rows."""
    try:
        statements = connection.extract_statements(sql)
        if len(statements) != 1:
            raise UsageError(f"One SQL statement is needed, not {len(statements)}.")
        kind = _word(statements[0].type)
        if kind not in {"SELECT", "EXPLAIN"}:
            raise UsageError(
                f"{kind} is not allowed: the index is only read, by SELECT, WITH, DESCRIBE or "
                f"EXPLAIN. The record is in the run directories; `bench runs rm` removes one."
            )
        connection.execute(statements[0])
        columns = [(column[0], str(column[1])) for column in connection.description or ()]
        if any("WITH TIME ZONE" in kind for _, kind in columns):
            raise UsageError(
                "A TIMESTAMP WITH TIME ZONE cannot be shown. Cast it: now()::TIMESTAMP is UTC."
            )
        return columns, connection.fetchall()
    except duckdb.Error as error:
        raise UsageError(
            f"The query failed: {str(error).strip()}\n"
            f"`bench query --schema` documents the tables. If the index itself is at fault, "
            f"`bench db rebuild` makes a new one."
        ) from None


def _polars_type(kind: str) -> Any:
    """Return the type of a column of DuckDB's; what has no like is shown as text."""
    import polars

    named: dict[str, Any] = {
        "BOOLEAN": polars.Boolean,
        "TINYINT": polars.Int64,
        "SMALLINT": polars.Int64,
        "INTEGER": polars.Int64,
        "BIGINT": polars.Int64,
        "UTINYINT": polars.Int64,
        "USMALLINT": polars.Int64,
        "UINTEGER": polars.Int64,
        "UBIGINT": polars.UInt64,
        "HUGEINT": polars.Int128,
        "FLOAT": polars.Float64,
        "DOUBLE": polars.Float64,
        "DECIMAL": polars.Float64,
        "DATE": polars.Date,
        "TIMESTAMP": polars.Datetime("us"),
        "VARCHAR": polars.String,
    }
    element = kind.removesuffix("[]").partition("(")[0]  # DECIMAL(18,3) is a DECIMAL
    if kind.endswith("[]"):
        return polars.List(named[element]) if element in named else polars.String
    return named.get(element, polars.String)


def _word(kind: object) -> str:
    return str(getattr(kind, "name", kind)).rpartition(".")[2].upper()
