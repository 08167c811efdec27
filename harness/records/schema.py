"""The tables of the index: every column, what it means, and how it follows from a run's record."""

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from harness.records.record import NANO, RunDetail
from harness.records.run_directory import Owner, RunDirectory


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
            "examples_to_target": detail.examples_to_target,
            "model_passes_to_target": detail.model_passes_to_target,
            "direction": spec.workload.metric.direction,
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
            ("examples_to_target", "BIGINT", "examples at the credited evaluation"),
            ("model_passes_to_target", "BIGINT", "model passes at the credited evaluation"),
            ("evaluations", "INTEGER", "number of evaluations"),
            ("target", "DOUBLE", "the workload's target"),
            ("direction", "VARCHAR", "maximise or minimise: which way the metric is better"),
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


def _json(fields: Mapping[str, object]) -> str:
    return msgspec.json.encode(fields, order="sorted").decode()


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
