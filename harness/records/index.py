"""The index of the runs: a DuckDB file that can be rebuilt from the run directories.

The run directories are the record; this file only answers questions quickly. DuckDB admits
one writing process and then no other reader, so writers queue at a lock file beside the
index, hold the index for one short transaction, and everybody waits a bounded time for a
file that another process has open. An index that is damaged, or that another version of
this module wrote, is rebuilt and never an error.
"""

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import msgspec

from harness.errors import UsageError
from harness.home import index_path, runs_folder
from harness.records.answers import answer
from harness.records.record import read_run
from harness.records.run_directory import RunDirectory, run_directories, run_ids
from harness.records.schema import TABLES, Column

if TYPE_CHECKING:
    import polars

PATIENCE_S = 30.0  # for another process to let go of the index
RETRY_PERIOD_S = 0.02

# Runs read before they are written: the rows of a hundred thousand would fill the memory.
_BATCH = 1000

# One thread: the index is small, and a run may be timed beside us.
_SETTINGS: dict[str, str | bool | int | float | list[str]] = {"threads": 1}

# Raise it when a column comes to mean something else under the same name, type and comment.
_DERIVATION = 1


class IndexBusyError(UsageError):
    """Another process has held the index for longer than anybody should wait."""


# A full disk shows as the last two: DuckDB fails in the commit, and then takes nothing more.
_WRITE_ERRORS = (duckdb.IOException, duckdb.TransactionException, duckdb.FatalException)


class _UnwritableError(UsageError):
    """The results folder is not ours to write, or is full."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ingestion:
    """What became of some run directories."""

    indexed: int = 0
    live: int = 0
    damaged: Mapping[str, str] = field(default_factory=dict)  # folder name: why

    def __add__(self, other: "Ingestion") -> "Ingestion":
        return Ingestion(
            indexed=self.indexed + other.indexed,
            live=self.live + other.live,
            damaged={**self.damaged, **other.damaged},
        )


def ingest(home: Path, directories: Iterable[RunDirectory]) -> Ingestion:
    """Put runs into the index; rows of the same runs are replaced, live runs left alone.

    Raises:
        IndexBusyError: another process has held the index for PATIENCE_S. Nothing is lost:
            the next `refresh` finds the runs.
        UsageError: the index cannot be written.
    """
    with _writers_lock(home):
        return _ingest_locked(home, list(directories))


def rebuild(home: Path) -> Ingestion:
    """Build the index anew from every run directory and move it into place.

    Raises as `ingest`.
    """
    with _writers_lock(home):
        return _rebuild_locked(home)


def refresh(home: Path) -> Ingestion:
    """Bring the index up to the run directories, reading only those it does not know.

    Rows whose directory is gone are dropped. Without any run directory there is nothing to
    index, and nothing is created. Raises as `ingest`.
    """
    # In this order: a run that ends in between is in its directory before it is in the index,
    # so it is never taken for one whose directory is gone.
    known = _known(home)
    names = set(run_ids(runs_folder(home)))
    if known is None:
        nothing = not names and not index_path(home).exists()
        return Ingestion() if nothing else rebuild(home)
    unknown = [RunDirectory(runs_folder(home) / name) for name in sorted(names - known)]
    gone = known - names
    ingestion = Ingestion()
    for found, read in _in_batches(unknown):
        ingestion += read
        if found or gone:
            with _writers_lock(home):
                if not _write(home, found, gone):
                    return _rebuild_locked(home)
            gone = set()
    return ingestion


def remove(home: Path, run_ids: Collection[str]) -> None:
    """Delete the rows of some runs. Raises as `ingest`."""
    if index_path(home).exists():
        with _writers_lock(home):
            _write(home, [], run_ids)  # a damaged index is rebuilt when it is next read


def query(home: Path, sql: str) -> "polars.DataFrame":
    """Return the answer to one reading SQL statement, after a `refresh`.

    Raises:
        UsageError: the SQL is wrong, is more than one statement or would write.
        IndexBusyError: see `ingest`.
    """
    with contextlib.closing(open_for_reading(home)) as connection:
        return answer(connection, sql)


def open_for_reading(home: Path) -> duckdb.DuckDBPyConnection:
    """Return a connection to the index after a `refresh`; the caller closes it.

    Raises:
        IndexBusyError: see `ingest`.
    """
    try:
        refresh(home)
    except _UnwritableError:  # somebody else's results, on a read-only mount say
        return _in_memory(home)
    if not index_path(home).exists():
        return _in_memory(home)
    return _connect(index_path(home), read_only=True)


def _in_memory(home: Path) -> duckdb.DuckDBPyConnection:
    """Return an index of the runs that no file holds."""
    connection = duckdb.connect(":memory:", config=_SETTINGS)
    _declare(connection)
    for found, _ in _in_batches(list(run_directories(runs_folder(home)))):
        _insert(connection, found)
    return connection


def _known(home: Path) -> set[str] | None:
    """Return the ids in the index, None where there is no usable index."""
    path = index_path(home)
    if not path.exists():
        return None
    try:
        with contextlib.closing(_connect(path, read_only=True)) as connection:
            if not _is_current(connection):
                return None
            return {row[0] for row in connection.execute("SELECT run_id FROM runs").fetchall()}
    except (duckdb.Error, FileNotFoundError):
        return None


def _ingest_locked(home: Path, directories: list[RunDirectory]) -> Ingestion:
    ingestion = Ingestion()
    for found, read in _in_batches(directories):
        ingestion += read
        if not _write(home, found, ()):
            _rebuild_locked(home)
            _write(home, found, ())  # those that lie outside the home's own folder
    return ingestion


def _write(home: Path, found: "list[_Found]", gone: Collection[str]) -> bool:
    """Replace and delete rows in one transaction; return False where no index is usable."""
    path = index_path(home)
    if not path.exists():
        return False
    try:
        with contextlib.closing(_connect(path, read_only=False)) as connection:
            if not _is_current(connection):
                return False
            connection.begin()
            for table in TABLES:
                connection.execute(
                    f"DELETE FROM {table.name} WHERE run_id IN (SELECT unnest(?::VARCHAR[]))",  # noqa: S608 - our own names
                    [[*gone, *(run.run_id for run in found)]],
                )
            _insert(connection, found)
            connection.commit()
    except duckdb.Error as error:
        if "Permission denied" in str(error) or "Read-only" in str(error):
            raise _unwritable(path, error) from None
        return False  # damaged, or no room to write: a rebuild tells which
    return True


def _rebuild_locked(home: Path) -> Ingestion:
    folder = runs_folder(home)
    folders = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    path = index_path(home)
    aside = path.with_name(f"{path.name}.new")
    ingestion = Ingestion()
    try:
        _delete(aside)
        with contextlib.closing(_connect(aside, read_only=False)) as connection:
            connection.begin()
            _declare(connection)
            for found, read in _in_batches([RunDirectory(path) for path in folders]):
                ingestion += read
                _insert(connection, found)
            connection.commit()
            # Into the file itself, since that alone is moved; closing would not say if it failed.
            connection.execute("CHECKPOINT")
        # A log left by a killed writer belongs to the old file; the new one must not replay it.
        _wal(path).unlink(missing_ok=True)
        aside.replace(path)
    except (OSError, *_WRITE_ERRORS) as error:
        with contextlib.suppress(OSError):
            _delete(aside)
        raise _unwritable(path, error) from None
    return ingestion


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    run_id: str
    rows: dict[str, list[Mapping[str, object]]]  # by table


def _in_batches(directories: Sequence[RunDirectory]) -> Iterator[tuple[list[_Found], Ingestion]]:
    """Yield the runs some at a time; without any, one empty batch."""
    for start in range(0, max(len(directories), 1), _BATCH):
        yield _read(directories[start : start + _BATCH])


def _read(directories: Iterable[RunDirectory]) -> tuple[list[_Found], Ingestion]:
    found: list[_Found] = []
    damaged: dict[str, str] = {}
    live = 0
    for directory in directories:
        if directory.is_live():
            live += 1
            continue
        try:
            detail = read_run(directory)
            if detail.record.run_id != directory.run_id:
                raise ValueError(f"it is a copy or was renamed: the run is {detail.record.run_id}")
            rows = {table.name: table.rows(directory, detail) for table in TABLES}
        # What a foreign hand or a full disk left behind may break in any of these ways.
        except (OSError, msgspec.MsgspecError, LookupError, TypeError, ValueError) as error:
            damaged[directory.run_id] = str(error) or type(error).__name__
        else:
            found.append(_Found(run_id=directory.run_id, rows=rows))
    return found, Ingestion(indexed=len(found), live=live, damaged=damaged)


def _declare(connection: duckdb.DuckDBPyConnection) -> None:
    for statement in _declarations():
        connection.execute(statement)
    connection.execute("CREATE TABLE index_version (version VARCHAR)")
    connection.execute("INSERT INTO index_version VALUES (?)", [_version()])


def _declarations() -> Iterator[str]:
    for table in TABLES:
        columns = ", ".join(f'"{column.name}" {column.type}' for column in table.columns)
        yield f"CREATE TABLE {table.name} ({columns})"
        yield f"COMMENT ON TABLE {table.name} IS {_quoted(table.comment)}"
        for column in table.columns:
            yield f'COMMENT ON COLUMN {table.name}."{column.name}" IS {_quoted(column.comment)}'


def _version() -> str:
    """Return the version of the schema: it changes with any declaration, by itself."""
    text = "\n".join((str(_DERIVATION), *_declarations()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _is_current(connection: duckdb.DuckDBPyConnection) -> bool:
    try:
        rows = connection.execute("SELECT version FROM index_version").fetchall()
    except duckdb.Error:
        return False
    return rows == [(_version(),)]


def _insert(connection: duckdb.DuckDBPyConnection, found: list[_Found]) -> None:
    for table in TABLES:
        rows = [row for run in found for row in run.rows[table.name]]
        if not rows:
            continue
        # Whole columns as parameters: a statement a row takes a hundred times as long.
        types = [_parameter_type(column) for column in table.columns]
        unnested = ", ".join(f"unnest(${n}::{kind}[])" for n, kind in enumerate(types, 1))
        columns = [
            [_parameter(row[column.name], column) for row in rows] for column in table.columns
        ]
        connection.execute(f"INSERT INTO {table.name} SELECT {unnested}", columns)


def _parameter_type(column: Column) -> str:
    return "VARCHAR" if column.type == "JSON" else column.type


def _parameter(value: Any, column: Column) -> object:
    # A list of parameters takes its type from its first elements, so 1 among 0.5s must be 1.0.
    return float(value) if column.type == "DOUBLE" and value is not None else value


@contextlib.contextmanager
def _writers_lock(home: Path) -> Iterator[None]:
    path = index_path(home)
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise _unwritable(path, error) from None
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                _wait(path, deadline, error)
        yield
    finally:
        os.close(lock)


def _connect(path: Path, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    """Open the file, waiting for a process that has it open."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return duckdb.connect(str(path), read_only=read_only, config=_SETTINGS)
        except duckdb.IOException as error:
            if "Could not set lock" not in str(error):
                raise
            _wait(path, deadline, error)


def _wait(path: Path, deadline: float, error: Exception) -> None:
    if time.monotonic() >= deadline:
        raise IndexBusyError(
            f"The index {path} was in use by another process for {PATIENCE_S:.0f} s ({error}). "
            f"Close what has it open and try again; no run is lost."
        ) from None
    time.sleep(RETRY_PERIOD_S)


def _unwritable(path: Path, error: Exception) -> UsageError:
    return _UnwritableError(
        f"The index {path} cannot be written: {error}. Make room, or name a results folder that "
        f"is yours to write with --results DIR or $BENCH_RESULTS."
    )


def _delete(path: Path) -> None:
    path.unlink(missing_ok=True)
    _wal(path).unlink(missing_ok=True)


def _wal(path: Path) -> Path:
    return path.with_name(f"{path.name}.wal")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
