import contextlib
import datetime
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import polars
import pytest
from records.synthetic_runs import SyntheticRun

from harness.errors import UsageError
from harness.home import index_path, runs_folder
from harness.records import index, schema
from harness.records.record import RunRecord
from harness.records.run_directory import RunDirectory


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "PATIENCE_S", 0.2)


def _ids(home: Path) -> list[str]:
    return index.query(home, "SELECT run_id FROM runs ORDER BY run_id")["run_id"].to_list()


def test_every_field_of_a_record_is_a_column() -> None:
    columns = {column.name for column in schema.TABLES[0].columns}
    assert set(RunRecord.__struct_fields__) <= columns


def test_a_run_is_indexed_whole(tmp_path: Path) -> None:
    run = SyntheticRun(
        run_id="a",
        seed=2**63 + 1,
        hyperparameters={"z": True, "optimizer.lr": 1e-3},
        taints=["drift", "a shared device"],
        energy_j=3.5,
    )
    assert index.ingest(tmp_path, [run.write(tmp_path)]).indexed == 1
    (row,) = index.query(tmp_path, "SELECT * FROM runs").to_dicts()
    assert row["seed"] == 2**63 + 1
    assert row["hyperparameters"] == '{"optimizer.lr":0.001,"z":true}'
    assert row["tainted"] == ["drift", "a shared device"]
    assert row["time_to_target_s"] == pytest.approx(3.0)
    assert row["created_at"] == datetime.datetime(2023, 11, 14, 22, 13, 20)
    assert row["budget_s"] == pytest.approx(10.0)
    assert (row["steps_to_target"], row["model_passes_to_target"]) == (300, 9000)
    assert (row["clock"], row["git_commit"]) == ("cold", "c0ffee")
    assert row["host"]
    assert row["interpolated_crossing_s"] is None and row["gpu_peak_memory_bytes"] is None
    evaluations = index.query(tmp_path, "SELECT * FROM evaluations ORDER BY index").to_dicts()
    assert [row["value"] for row in evaluations] == [0.5, 0.8, 0.92, 0.93]
    assert [row["meets"] for row in evaluations] == [False, False, True, True]
    assert evaluations[0]["test_value"] is None
    assert json.loads(evaluations[0]["metrics"]) == {"accuracy": 0.5, "loss": 0.1}
    telemetry = index.query(tmp_path, "SELECT name, value, text FROM telemetry").rows()
    assert ("energy_j", 3.5, None) in telemetry
    assert ("peak_memory_source", None, "vmhwm") in telemetry
    assert index.query(tmp_path, "SELECT key, value FROM notes").rows() == [("warm-up", "done")]


def test_ingesting_twice_replaces(tmp_path: Path) -> None:
    directory = SyntheticRun(run_id="a").write(tmp_path)
    index.ingest(tmp_path, [directory])
    index.ingest(tmp_path, [directory])
    for table, rows in (("runs", 1), ("evaluations", 4), ("notes", 1)):
        assert index.query(tmp_path, f"SELECT count(*) AS n FROM {table}")["n"].item() == rows


def test_tables_and_columns_are_documented_in_the_file(tmp_path: Path) -> None:
    index.ingest(tmp_path, [SyntheticRun(run_id="a").write(tmp_path)])
    told = index.query(tmp_path, "SELECT table_name, column_name, comment FROM duckdb_columns()")
    comments = {(table, column): comment for table, column, comment in told.rows()}
    for row in schema.schema_rows():
        assert comments[row["table"], row["column"]] == row["comment"] != ""
        assert row["comment"] in schema.schema_text()
    tables = index.query(tmp_path, "SELECT table_name, comment FROM duckdb_tables()").rows()
    assert {table.name: table.comment for table in schema.TABLES}.items() <= dict(tables).items()


def test_a_run_whose_ingestion_failed_is_taken_in_when_the_index_is_read(tmp_path: Path) -> None:
    index.ingest(tmp_path, [SyntheticRun(run_id="a").write(tmp_path)])
    SyntheticRun(run_id="b").write(tmp_path)
    assert _ids(tmp_path) == ["a", "b"]


def test_without_an_index_reading_makes_one(tmp_path: Path) -> None:
    SyntheticRun(run_id="a").write(tmp_path)
    assert _ids(tmp_path) == ["a"]
    assert index_path(tmp_path).exists()


def test_without_runs_reading_creates_nothing(tmp_path: Path) -> None:
    home = tmp_path / "results"
    frame = index.query(home, "SELECT * FROM runs")
    assert frame.is_empty() and "run_id" in frame.columns
    assert not home.exists()


def test_rows_of_a_removed_directory_are_dropped(tmp_path: Path) -> None:
    for name in ("a", "b"):
        SyntheticRun(run_id=name).write(tmp_path)
    assert _ids(tmp_path) == ["a", "b"]
    (runs_folder(tmp_path) / "a").rename(tmp_path / "elsewhere")
    assert _ids(tmp_path) == ["b"]


def test_a_run_that_ends_while_the_index_is_refreshed_is_not_taken_for_a_removed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.ingest(tmp_path, [SyntheticRun(run_id="a").write(tmp_path)])
    known = index._known

    def known_after_another_run(home: Path) -> set[str] | None:
        monkeypatch.setattr(index, "_known", known)
        index.ingest(home, [SyntheticRun(run_id="b").write(home)])
        return known(home)

    monkeypatch.setattr(index, "_known", known_after_another_run)
    index.refresh(tmp_path)
    with duckdb.connect(str(index_path(tmp_path)), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (2,)


def test_live_runs_are_left_alone_and_interrupted_ones_indexed(tmp_path: Path) -> None:
    SyntheticRun(run_id="done").write(tmp_path)
    SyntheticRun(run_id="killed").abandon(tmp_path)
    writer = SyntheticRun(run_id="live").start(tmp_path)
    ingestion = index.rebuild(tmp_path)
    assert (ingestion.indexed, ingestion.live, ingestion.damaged) == (2, 1, {})
    told = index.query(tmp_path, "SELECT run_id, outcome FROM runs ORDER BY run_id").rows()
    assert told == [("done", "reached"), ("killed", "interrupted")]
    assert index.ingest(tmp_path, [RunDirectory(writer.folder)]).live == 1
    writer.close()


def test_damaged_directories_are_named_and_skipped(tmp_path: Path) -> None:
    SyntheticRun(run_id="good").write(tmp_path)
    for name, file, content in (
        ("no spec", "spec.json", None),
        ("bad spec", "spec.json", b"{"),
        ("spec of another kind", "spec.json", b"[]"),
    ):
        folder = SyntheticRun(run_id=name).write(tmp_path).folder
        (folder / file).unlink()
        if content is not None:
            (folder / file).write_bytes(content)
    shortened = SyntheticRun(run_id="lost evaluations").write(tmp_path).folder / "events.jsonl"
    lines = shortened.read_bytes().splitlines(keepends=True)
    shortened.write_bytes(b"".join(line for line in lines if b"Evaluation" not in line))
    original = SyntheticRun(run_id="original").write(tmp_path).folder
    original.rename(original.with_name("renamed"))
    ingestion = index.rebuild(tmp_path)
    assert ingestion.indexed == 1
    assert sorted(ingestion.damaged) == [
        "bad spec",
        "lost evaluations",
        "no spec",
        "renamed",
        "spec of another kind",
    ]
    assert all(ingestion.damaged.values())
    assert _ids(tmp_path) == ["good"]


def test_the_log_of_a_killed_writer_is_neither_lost_nor_played_twice(tmp_path: Path) -> None:
    index.ingest(tmp_path, [SyntheticRun(run_id="a").write(tmp_path)])
    script = (
        f"import duckdb, os; c = duckdb.connect({str(index_path(tmp_path))!r}); "
        f"c.execute(\"UPDATE runs SET submission = 'changed'\"); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script], check=False)
    log = index_path(tmp_path).with_name("bench.duckdb.wal")
    assert log.exists()
    sql = "SELECT submission FROM runs ORDER BY run_id"
    assert index.query(tmp_path, sql)["submission"].to_list() == ["changed"]
    index.rebuild(tmp_path)
    assert not log.exists()
    assert index.query(tmp_path, sql)["submission"].to_list() == ["adamw"]


@pytest.mark.parametrize("content", [b"", b"not a database" * 1000])
def test_a_damaged_index_is_rebuilt(tmp_path: Path, content: bytes) -> None:
    SyntheticRun(run_id="a").write(tmp_path)
    index_path(tmp_path).write_bytes(content)
    assert _ids(tmp_path) == ["a"]
    index_path(tmp_path).write_bytes(content)
    index.ingest(tmp_path, [SyntheticRun(run_id="b").write(tmp_path)])
    assert _ids(tmp_path) == ["a", "b"]


def test_an_index_of_another_version_is_rebuilt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SyntheticRun(run_id="a").write(tmp_path)
    index.rebuild(tmp_path)
    monkeypatch.setattr(index, "_DERIVATION", 999)
    with duckdb.connect(str(index_path(tmp_path))) as connection:
        connection.execute("ALTER TABLE runs DROP COLUMN seed")
    assert index.query(tmp_path, "SELECT seed FROM runs")["seed"].to_list() == [0]


def test_rebuilding_gives_what_ingesting_gave(tmp_path: Path) -> None:
    for seed in range(5):
        run = SyntheticRun(run_id=f"run-{seed}", seed=seed, values=(0.1 * seed, None, 0.91, 0.92))
        index.ingest(tmp_path, [run.write(tmp_path)])
    order = {"runs": "run_id", "evaluations": "run_id, index", "telemetry": "run_id, name"}
    queries = [f"SELECT * FROM {table} ORDER BY {by}" for table, by in order.items()]
    before = [index.query(tmp_path, sql) for sql in queries]
    index.rebuild(tmp_path)
    for sql, frame in zip(queries, before, strict=True):
        assert index.query(tmp_path, sql).equals(frame)


def test_runs_are_read_in_batches_and_none_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "_BATCH", 2)
    names = [f"run-{number}" for number in range(7)]
    for name in names[:5]:
        SyntheticRun(run_id=name).write(tmp_path)
    (runs_folder(tmp_path) / "run-1" / "events.jsonl").unlink()
    (runs_folder(tmp_path) / "run-4" / "spec.json").write_text("{")
    rebuilt = index.rebuild(tmp_path)
    assert rebuilt.indexed == 4 and list(rebuilt.damaged) == ["run-4"]
    for name in names[5:]:
        SyntheticRun(run_id=name).write(tmp_path)
    (runs_folder(tmp_path) / "run-0").rename(tmp_path / "elsewhere")
    SyntheticRun(run_id="run-7").write(tmp_path)
    refreshed = index.refresh(tmp_path)
    assert refreshed.indexed == 3 and list(refreshed.damaged) == ["run-4"]
    assert _ids(tmp_path) == ["run-1", "run-2", "run-3", "run-5", "run-6", "run-7"]
    with contextlib.closing(index._in_memory(tmp_path)) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (6,)


def test_removed_rows_are_gone(tmp_path: Path) -> None:
    directories = [SyntheticRun(run_id=name).write(tmp_path) for name in ("a", "b")]
    index.ingest(tmp_path, directories)
    index.remove(tmp_path, ["a"])
    with duckdb.connect(str(index_path(tmp_path)), read_only=True) as connection:
        for table in schema.TABLES:
            told = connection.execute(f"SELECT DISTINCT run_id FROM {table.name}").fetchall()
            assert told == [("b",)]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("DELETE FROM runs", "DELETE is not allowed"),
        ("INSERT INTO runs (run_id) VALUES ('x')", "INSERT is not allowed"),
        ("COPY runs TO 'out.csv'", "COPY is not allowed"),
        ("ATTACH 'other.duckdb'", "ATTACH is not allowed"),
        ("SELECT 1; DELETE FROM runs", "not 2"),
        ("", "not 0"),
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM nothing", "nothing"),
        ("SELECT now()", "::TIMESTAMP"),
    ],
)
def test_wrong_sql_is_the_users_error(tmp_path: Path, sql: str, said: str) -> None:
    SyntheticRun(run_id="a").write(tmp_path)
    with pytest.raises(UsageError, match=said):
        index.query(tmp_path, sql)
    assert _ids(tmp_path) == ["a"]


def test_answers_keep_their_types(tmp_path: Path) -> None:
    sql = """
        SELECT 1 AS whole, sum(1) AS big, 1.5 AS decimal, 'a' AS word, [1, 2] AS list,
               [0.5] AS halves, true AS yes, NULL AS nothing, {'a': 1} AS struct,
               DATE '2024-01-02' AS day, 2 AS whole
    """
    frame = index.query(tmp_path, sql)
    (row,) = frame.to_dicts()
    assert row == {
        "whole": 1,
        "big": 1,
        "decimal": 1.5,
        "word": "a",
        "list": [1, 2],
        "halves": [0.5],
        "yes": True,
        "nothing": None,
        "struct": "{'a': 1}",
        "day": datetime.date(2024, 1, 2),
        "whole_11": 2,
    }
    assert frame.schema["list"] == polars.List(polars.Int64)
    for reading in ("DESCRIBE runs", "SUMMARIZE runs", "EXPLAIN SELECT 1", "FROM runs"):
        index.query(tmp_path, reading)


def test_waiting_for_a_writer_has_an_end(tmp_path: Path, impatient: None) -> None:
    directory = SyntheticRun(run_id="a").write(tmp_path)
    index.ingest(tmp_path, [directory])
    with _Holding(index_path(tmp_path)):
        with pytest.raises(index.IndexBusyError, match="no run is lost"):
            index.ingest(tmp_path, [directory])
        with pytest.raises(index.IndexBusyError):
            index.query(tmp_path, "SELECT 1")
    assert _ids(tmp_path) == ["a"]


def test_a_reader_waits_for_a_writer(tmp_path: Path) -> None:
    index.ingest(tmp_path, [SyntheticRun(run_id="a").write(tmp_path)])
    with _Holding(index_path(tmp_path), seconds=0.5):
        assert _ids(tmp_path) == ["a"]


def test_results_that_cannot_be_written_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SyntheticRun(run_id="a").write(tmp_path)

    def refuse(*arguments: object) -> int:
        raise PermissionError("read-only")

    monkeypatch.setattr(index.os, "open", refuse)
    assert _ids(tmp_path) == ["a"]
    assert not index_path(tmp_path).exists()
    with pytest.raises(UsageError, match="--results"):
        index.rebuild(tmp_path)


@contextlib.contextmanager
def _room_for_files_of(size_bytes: int) -> Iterator[None]:
    """Have writing past so many bytes of a file fail, as on a full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size_bytes", [0, 4_096, 12_288, 65_536, 300_000])
def test_on_a_full_disk_the_runs_can_be_read_and_the_index_comes_later(
    size_bytes: int, tmp_path: Path
) -> None:
    SyntheticRun(run_id="a").write(tmp_path)
    with _room_for_files_of(size_bytes):
        assert _ids(tmp_path) == ["a"]
        with pytest.raises(UsageError, match="Make room"):
            index.rebuild(tmp_path)
        assert not list(tmp_path.glob("*.new*"))
    assert _ids(tmp_path) == ["a"]
    assert index_path(tmp_path).exists()


@pytest.mark.parametrize("size_bytes", [0, 12_288, 300_000])
def test_a_disk_that_fills_up_under_an_index_loses_no_run(size_bytes: int, tmp_path: Path) -> None:
    index.ingest(tmp_path, [SyntheticRun(run_id="a").write(tmp_path)])
    b = SyntheticRun(run_id="b").write(tmp_path)
    with _room_for_files_of(size_bytes):
        with contextlib.suppress(UsageError):
            index.ingest(tmp_path, [b])
        assert _ids(tmp_path) == ["a", "b"]
    assert _ids(tmp_path) == ["a", "b"]


_WRITER = """
import sys
from pathlib import Path
from records.synthetic_runs import SyntheticRun
from harness.records import index
home, name = Path(sys.argv[1]), sys.argv[2]
for number in range(15):
    index.ingest(home, [SyntheticRun(run_id=f"{name}-{number:02}").write(home)])
"""


def test_two_processes_write_while_a_third_reads(tmp_path: Path) -> None:
    tests = str(Path(__file__).parents[1])
    script = f"import sys; sys.path.insert(0, {tests!r})\n{_WRITER}"
    writers = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", script, str(tmp_path), name])
        for name in ("one", "two")
    ]
    seen = [0]
    while any(writer.poll() is None for writer in writers):
        seen.append(index.query(tmp_path, "SELECT count(*) AS n FROM runs")["n"].item())
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen == sorted(seen)
    # Not `_ids`, which would make up for a loss.
    with duckdb.connect(str(index_path(tmp_path)), read_only=True) as connection:
        for table, rows in (("runs", 30), ("evaluations", 120)):
            told = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
            assert told == (rows,)


class _Holding:
    """Another process that has the index open for writing."""

    def __init__(self, path: Path, seconds: float = 60.0) -> None:
        script = (
            f"import duckdb, time; c = duckdb.connect({str(path)!r}); print('open', flush=True); "
            f"time.sleep({seconds}); c.close()"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "open\n"

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
