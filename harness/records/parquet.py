"""Parquet files of an index's runs, to be carried to one place and queried there as they are."""

import contextlib
from pathlib import Path
from typing import Any

import duckdb

from harness.errors import UsageError
from harness.records.answers import rows
from harness.records.index import open_for_reading
from harness.records.schema import TABLES

# So that one file of runs is enough for a leaderboard on either clock.
RUNS_SQL = """
    SELECT runs.*, compiled.compile_s
    FROM runs LEFT JOIN (
        SELECT run_id, max(compile_s) AS compile_s FROM evaluations GROUP BY run_id
    ) AS compiled USING (run_id)
    ORDER BY run_id
"""


def export(home: Path, folder: Path, name: str) -> dict[str, int]:
    """Write `folder/name.parquet`, the runs, and a subfolder for each other table.

    A name a home, so that the files of several homes lie side by side and `folder/*.parquet`
    are all their runs. Returns the number of rows by table.

    Raises:
        UsageError: the folder cannot be written.
        IndexBusyError: see `harness.records.index.ingest`.
    """
    written = {}
    with contextlib.closing(open_for_reading(home)) as connection:
        for table in TABLES:
            runs = table.name == "runs"
            path = (folder if runs else folder / table.name) / f"{name}.parquet"
            sql = RUNS_SQL if runs else f"SELECT * FROM {table.name} ORDER BY ALL"  # noqa: S608
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                aside = path.with_suffix(".new")
                relation = connection.sql(sql)
                relation.write_parquet(str(aside), compression="zstd")
                aside.replace(path)
            except (OSError, duckdb.IOException) as error:
                raise UsageError(f"{path} cannot be written: {error}.") from None
            written[table.name] = len(relation)
    return written


def measured(home: Path, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows of an `sql` that reads `FROM measured`: the runs under `home`.

    Raises as `harness.records.index.query`.
    """
    with contextlib.closing(open_for_reading(home)) as connection:
        return rows(connection, f"WITH measured AS ({RUNS_SQL}) {sql}")


def measured_in(pattern: str, sql: str) -> list[tuple[Any, ...]]:
    """The same of the runs in the Parquet files that `pattern` matches, each once; they stay.

    Raises:
        UsageError: no file matches, or one holds no runs.
    """
    quoted = "'" + pattern.replace("'", "''") + "'"
    with contextlib.closing(duckdb.connect(":memory:", config={"threads": 1})) as connection:
        if not connection.execute(f"SELECT 1 FROM glob({quoted}) LIMIT 1").fetchall():  # noqa: S608
            raise UsageError(
                f"No file matches {pattern!r}. `bench export parquet DIR` writes DIR/NAME.parquet."
            )
        runs = f"SELECT DISTINCT ON (run_id) * FROM read_parquet({quoted}, union_by_name = true)"  # noqa: S608
        try:
            return rows(connection, f"WITH measured AS ({runs}) {sql}")
        except UsageError as error:
            raise UsageError(
                f"{pattern} holds no runs as `bench export parquet` writes them. {error}"
            ) from None
