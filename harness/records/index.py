"""The index of the runs: a DuckDB file that can be rebuilt from the run directories.

The run directories are the record; this file only answers questions quickly. DuckDB admits
one writing process and then no other reader, so writers queue at a lock file beside the
index, hold the index for one short transaction, and everybody waits a bounded time for a
file that another process has open. An index that is damaged, or that another version of
this module wrote, is rebuilt and never an error.
"""

import contextlib
import datetime
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import msgspec

from harness.errors import UsageError
from harness.home import index_path, runs_folder
from harness.records.record import NANO, RunDetail, read_run
from harness.records.run_directory import Owner, RunDirectory, run_directories

if TYPE_CHECKING:
    import polars

PATIENCE_S = 30.0  # for another process to let go of the index
RETRY_PERIOD_S = 0.02

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column as it is declared and documented."""

    name: str
    type: str
    comment: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table as it is declared and documented; `rows` derives its rows from one run."""

    name: str
    comment: str
    columns: tuple[Column, ...]
    rows: Callable[[RunDirectory, RunDetail], list[Mapping[str, object]]]


def _columns(*declarations: tuple[str, str, str]) -> tuple[Column, ...]:
    return tuple(Column(name=name, type=kind, comment=why) for name, kind, why in declarations)


def _run_rows(directory: RunDirectory, detail: RunDetail) -> list[Mapping[str, object]]:
    spec = detail.spec
    row = {name: getattr(detail.record, name) for name in detail.record.__struct_fields__}
    created = datetime.datetime.fromtimestamp(spec.created_unix_ns // 1000 / 1e6, datetime.UTC)
    return [
        row
        | {
            "hyperparameters": _json(detail.record.hyperparameters),
            "source_sha256": spec.source_sha256,
            "created_at": created.replace(tzinfo=None),
            "host": _host(directory),
            "git_commit": _git_commit(directory.environment()),
            "identity": spec.identity,
            "ruleset": spec.ruleset,
            "study": spec.study,
            "trial": spec.trial,
            "steps_to_target": detail.steps_to_target,
            "model_passes_to_target": detail.model_passes_to_target,
            "budget_s": spec.budget_ns * NANO,
            "clock": spec.clock,
        }
    ]


def _evaluation_rows(_: RunDirectory, detail: RunDetail) -> list[Mapping[str, object]]:
    return [
        {
            "run_id": detail.record.run_id,
            "index": evaluation.index,
            "elapsed_s": evaluation.elapsed_ns * NANO,
            "compile_s": evaluation.compile_ns * NANO,
            "steps": evaluation.steps,
            "examples": evaluation.examples,
            "model_passes": evaluation.model_passes,
            "value": evaluation.value,
            "meets": evaluation.meets,
            "off_grid": evaluation.off_grid,
            "test_value": evaluation.test_value,
            "export_s": evaluation.export_ns * NANO,
            "evaluation_s": evaluation.evaluation_ns * NANO,
            "metrics": _json(evaluation.metrics),
        }
        for evaluation in detail.evaluations
    ]


def _telemetry_rows(_: RunDirectory, detail: RunDetail) -> list[Mapping[str, object]]:
    return [
        {
            "run_id": detail.record.run_id,
            "name": name,
            "value": None if isinstance(figure, str) else figure,
            "text": figure if isinstance(figure, str) else None,
        }
        for name, figure in detail.telemetry.items()
    ]


def _note_rows(_: RunDirectory, detail: RunDetail) -> list[Mapping[str, object]]:
    return [
        {
            "run_id": detail.record.run_id,
            "position": position,
            "elapsed_s": note.elapsed_ns * NANO,
            "key": note.key,
            "value": note.value,
        }
        for position, note in enumerate(detail.notes)
    ]


TABLES = (
    Table(
        name="runs",
        comment="One row for each run that has ended. NULL: not measured, or it never happened.",
        rows=_run_rows,
        columns=_columns(
            ("run_id", "VARCHAR", "name of the run and of its directory"),
            ("created_at", "TIMESTAMP", "when the run was set up, UTC"),
            ("submission", "VARCHAR", "name of the submission"),
            ("source_sha256", "VARCHAR", "hash of the submission's source"),
            ("workload", "VARCHAR", "name of the workload, family/data"),
            ("workload_version", "INTEGER", "version of the workload's card"),
            ("seed", "UBIGINT", "the run's seed"),
            ("hyperparameters", "JSON", "the point, an object with sorted keys"),
            ("tuning_effort", "VARCHAR", "reference, defaults or 'k trials'"),
            ("outcome", "VARCHAR", "reached, budget, diverged, crashed, ..."),
            ("reason", "VARCHAR", "the outcome in words"),
            ("tainted", "VARCHAR[]", "reasons to leave the run out of rankings; empty: none"),
            ("time_to_target_s", "DOUBLE", "submission time credited for reaching the target"),
            ("time_without_compile_s", "DOUBLE", "time_to_target_s less compilation"),
            ("first_crossing_s", "DOUBLE", "first evaluation that met the target; never ranked"),
            ("interpolated_crossing_s", "DOUBLE", "crossing between evaluations; never ranked"),
            ("submission_time_s", "DOUBLE", "submission time when the run ended"),
            ("normalised_time", "DOUBLE", "time_to_target_s / pace_s; within a machine class"),
            ("pace_s", "DOUBLE", "seconds of a reference step on this machine"),
            ("drift", "DOUBLE", "pace after the run / pace_s - 1"),
            ("budget_s", "DOUBLE", "submission time after which the run is stopped"),
            ("clock", "VARCHAR", "cold, or warm (ranked without compilation)"),
            ("steps", "BIGINT", "steps when the run ended"),
            ("examples", "BIGINT", "training examples when the run ended"),
            ("model_passes", "BIGINT", "examples forwarded + 2 x backwarded, at the end"),
            ("steps_to_target", "BIGINT", "steps at the credited evaluation"),
            ("model_passes_to_target", "BIGINT", "model passes at the credited evaluation"),
            ("evaluations", "INTEGER", "number of evaluations"),
            ("target", "DOUBLE", "the workload's target"),
            ("best_metric", "DOUBLE", "best value of the metric that decides"),
            ("test_metric", "DOUBLE", "test metric at the credited evaluation; never decides"),
            ("throughput_examples_per_s", "DOUBLE", "examples / submission_time_s"),
            ("throughput_passes_per_s", "DOUBLE", "model_passes / submission_time_s"),
            ("peak_memory_bytes", "BIGINT", "peak resident memory of the trainee"),
            ("peak_memory_above_idle_bytes", "BIGINT", "the same above the idle trainee's"),
            ("gpu_peak_memory_bytes", "BIGINT", "peak GPU memory; NULL without a GPU"),
            ("energy_j", "DOUBLE", "energy over the on-clock spans, joules"),
            ("energy_source", "VARCHAR", "nvml, nvml_integrated_power or rapl"),
            ("export_s", "DOUBLE", "exporting weights, off the clock"),
            ("evaluation_s", "DOUBLE", "evaluating, off the clock"),
            ("device", "VARCHAR", "cpu or cuda:N"),
            ("machine_class", "VARCHAR", "results are compared inside one"),
            ("host", "VARCHAR", "host name of the referee"),
            ("git_commit", "VARCHAR", "commit of the checkout; NULL outside one"),
            ("identity", "VARCHAR", "equal for runs that ask the same question"),
            ("ruleset", "VARCHAR", "of the sweep; NULL: run by itself"),
            ("study", "INTEGER", "0 for the first study of the ruleset"),
            ("trial", "INTEGER", "0 for the study's first trial"),
        ),
    ),
    Table(
        name="evaluations",
        comment="One row for each evaluation; counts and times are totals since the start.",
        rows=_evaluation_rows,
        columns=_columns(
            ("run_id", "VARCHAR", "the run"),
            ("index", "INTEGER", "0 for the run's first evaluation"),
            ("elapsed_s", "DOUBLE", "submission time"),
            ("compile_s", "DOUBLE", "compilation within elapsed_s"),
            ("steps", "BIGINT", "steps so far"),
            ("examples", "BIGINT", "training examples so far"),
            ("model_passes", "BIGINT", "model passes so far"),
            ("value", "DOUBLE", "the metric that decides; NULL: not a number"),
            ("meets", "BOOLEAN", "whether it meets the target"),
            ("off_grid", "BOOLEAN", "forced after four reference intervals without one"),
            ("test_value", "DOUBLE", "test metric, where the target was met"),
            ("export_s", "DOUBLE", "exporting weights, off the clock"),
            ("evaluation_s", "DOUBLE", "evaluating, off the clock"),
            ("metrics", "JSON", "every metric measured, an object"),
        ),
    ),
    Table(
        name="telemetry",
        comment="Summary figures of a run over its on-clock spans; units are in the names.",
        rows=_telemetry_rows,
        columns=_columns(
            ("run_id", "VARCHAR", "the run"),
            ("name", "VARCHAR", "the figure, peak_memory_bytes say"),
            ("value", "DOUBLE", "its value; NULL: not measured, or a text"),
            ("text", "VARCHAR", "its text, the source of a figure say"),
        ),
    ),
    Table(
        name="notes",
        comment="What submissions reported about themselves.",
        rows=_note_rows,
        columns=_columns(
            ("run_id", "VARCHAR", "the run"),
            ("position", "INTEGER", "0 for the run's first note"),
            ("elapsed_s", "DOUBLE", "submission time"),
            ("key", "VARCHAR", "what was reported"),
            ("value", "VARCHAR", "its value"),
        ),
    ),
)


def schema_rows() -> list[dict[str, str]]:
    """Return the documentation, one row for each column: table, column, type, comment."""
    return [
        {"table": table.name, "column": column.name, "type": column.type, "comment": column.comment}
        for table in TABLES
        for column in table.columns
    ]


def schema_text() -> str:
    """Return the documentation of tables and columns as Markdown."""
    lines = []
    for table in TABLES:
        lines += [f"## {table.name}", "", table.comment, ""]
        lines += ["| column | type | meaning |", "|---|---|---|"]
        lines += [f"| {c.name} | {c.type} | {c.comment} |" for c in table.columns]
        lines.append("")
    return "\n".join(lines).rstrip()


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
    names = {directory.run_id for directory in run_directories(runs_folder(home))}
    if known is None:
        nothing = not names and not index_path(home).exists()
        return Ingestion() if nothing else rebuild(home)
    unknown = [RunDirectory(runs_folder(home) / name) for name in sorted(names - known)]
    gone = known - names
    found, ingestion = _read(unknown)
    if found or gone:
        with _writers_lock(home):
            if not _write(home, found, gone):
                return _rebuild_locked(home)
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
    try:
        refresh(home)
    except _UnwritableError:  # somebody else's results, on a read-only mount say
        current = False
    else:
        current = index_path(home).exists()
    with contextlib.closing(_reader(home) if current else _in_memory(home)) as connection:
        return _answer(connection, sql)


def _reader(home: Path) -> duckdb.DuckDBPyConnection:
    return _connect(index_path(home), read_only=True)


def _in_memory(home: Path) -> duckdb.DuckDBPyConnection:
    """Return an index of the runs that no file holds."""
    found, _ = _read(run_directories(runs_folder(home)))
    connection = duckdb.connect(":memory:", config=_SETTINGS)
    _declare(connection)
    for table in TABLES:
        _insert(connection, table, found)
    return connection


def _answer(connection: duckdb.DuckDBPyConnection, sql: str) -> "polars.DataFrame":
    import polars

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
        rows = connection.fetchall()
    except duckdb.Error as error:
        raise UsageError(
            f"The query failed: {str(error).strip()}\n"
            f"`bench query --schema` documents the tables. If the index itself is at fault, "
            f"`bench db rebuild` makes a new one."
        ) from None
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
    found, ingestion = _read(directories)
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
                _insert(connection, table, found)
            connection.commit()
    except duckdb.Error as error:
        if "Permission denied" in str(error) or "Read-only" in str(error):
            raise _unwritable(path, error) from None
        return False  # damaged, or no room to write: a rebuild tells which
    return True


def _rebuild_locked(home: Path) -> Ingestion:
    folder = runs_folder(home)
    folders = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    found, ingestion = _read([RunDirectory(path) for path in folders])
    path = index_path(home)
    aside = path.with_name(f"{path.name}.new")
    try:
        _delete(aside)
        with contextlib.closing(_connect(aside, read_only=False)) as connection:
            connection.begin()
            _declare(connection)
            for table in TABLES:
                _insert(connection, table, found)
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


def _insert(connection: duckdb.DuckDBPyConnection, table: Table, found: list[_Found]) -> None:
    rows = [row for run in found for row in run.rows[table.name]]
    if not rows:
        return
    # Whole columns as parameters: a statement a row takes a hundred times as long.
    types = [_parameter_type(column) for column in table.columns]
    unnested = ", ".join(f"unnest(${n}::{kind}[])" for n, kind in enumerate(types, 1))
    columns = [[_parameter(row[column.name], column) for row in rows] for column in table.columns]
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


def _json(fields: Mapping[str, object]) -> str:
    return msgspec.json.encode(fields, order="sorted").decode()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _host(directory: RunDirectory) -> str | None:
    try:
        owner = msgspec.json.decode((directory.folder / "process.json").read_bytes(), type=Owner)
    except (OSError, msgspec.MsgspecError):
        return None
    return owner.host


def _git_commit(environment: Mapping[str, object]) -> str | None:
    git = environment.get("git")
    commit = git.get("commit") if isinstance(git, dict) else None
    return commit if isinstance(commit, str) else None
