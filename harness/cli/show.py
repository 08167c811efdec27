"""`bench show`: all that one run's directory tells."""

import datetime
from collections.abc import Mapping
from typing import Any

import click
import msgspec

from harness import wording
from harness.cli import tables
from harness.cli.curve import curve
from harness.cli.parameters import results_option
from harness.cli.run_names import RunName, find_run
from harness.cli.tables import Format
from harness.errors import UsageError
from harness.home import results_home
from harness.records.record import RunDetail, RunRecord, read_run
from harness.records.run_directory import RunDirectory
from harness.table_text import Column

OUTPUT_LINES = 20
EVALUATIONS_AT_EACH_END = 5

_ENDED_WELL = frozenset({"reached", "budget"})


@click.command()
@click.argument("name", metavar="RUN", type=RunName())
@click.option("--source", is_flag=True, help="Print the submission's source as well.")
@tables.format_option("table", "json")
@results_option
def show(name: str, source: bool, form: Format, results: str | None) -> None:
    """Show one run. RUN is a run's id, a unique beginning of one, or `last`."""
    directory = find_run(results_home(results), name)
    live = directory.is_live()  # before the log is read: it may end in between
    try:
        detail = read_run(directory)
    except (OSError, msgspec.MsgspecError, LookupError, TypeError, ValueError) as error:
        raise UsageError(
            f"The run {directory.run_id} is damaged: {error}. What is left of it is in "
            f"{directory.folder}; `bench runs rm {directory.run_id}` removes it."
        ) from None
    if form == "json":
        tables.print_json(_everything(directory, detail, live, source))
    else:
        _print(directory, detail, live, source)


def _everything(
    directory: RunDirectory, detail: RunDetail, live: bool, source: bool
) -> dict[str, Any]:
    record: dict[str, Any] = msgspec.to_builtins(detail.record)
    # "evaluations" is their number in a record; here it is the evaluations themselves.
    record["evaluations"] = msgspec.to_builtins(detail.evaluations)
    if live:
        record |= {"outcome": None, "reason": "it is still running"}
    return record | {
        "status": "running" if live else detail.record.outcome,
        "created_at": _created(detail),
        "source_sha256": detail.spec.source_sha256,
        "budget_s": detail.spec.budget_ns / 1e9,
        "steps_to_target": detail.steps_to_target,
        "examples_to_target": detail.examples_to_target,
        "model_passes_to_target": detail.model_passes_to_target,
        "import_s": detail.import_s,
        "notes": msgspec.to_builtins(detail.notes),
        "telemetry": detail.telemetry,
        "environment": directory.environment(),
        "spec": msgspec.to_builtins(detail.spec),
        "traceback": detail.traceback,
        "output_tail": directory.output().splitlines()[-OUTPUT_LINES:],
        "source": directory.sources() if source else None,
        "directory": str(directory.folder),
    }


def _print(directory: RunDirectory, detail: RunDetail, live: bool, source: bool) -> None:
    record = detail.record
    outcome = "running" if live else record.outcome
    click.echo(f"{record.submission} on {record.workload} v{record.workload_version}: {outcome}")
    tables.print_fields(_summary(detail, live))
    _print_curve(detail)
    _print_evaluations(detail)
    _section("telemetry (over the on-clock spans)", _telemetry(detail))
    _section("notes", [(note.key, note.value) for note in detail.notes])
    _section("environment", _environment(directory))
    if detail.traceback:
        click.echo(f"\ntraceback\n{detail.traceback.rstrip()}")
    if not live and record.outcome not in _ENDED_WELL:
        _print_output(directory)
    if source:
        for file, text in directory.sources().items():
            click.echo(f"\nsource/{file}\n{text.rstrip()}")
    click.echo(f"\n{_sentence(detail, live)}")


def _summary(detail: RunDetail, live: bool) -> list[tuple[str, str]]:
    record = detail.record
    fields = [
        ("run", record.run_id),
        ("set up", wording.moment(_created(detail))),
        ("reason", "it is still running" if live else record.reason),
        ("tainted", "; ".join(record.tainted)),
        ("hyperparameters", wording.point(record.hyperparameters)),
        ("tuning effort", record.tuning_effort),
        ("seed", str(record.seed)),
        ("time", _seconds(record.time_to_target_s)),
        ("time without compile", _seconds(record.time_without_compile_s)),
        ("normalised time", _with_unit(record.normalised_time, "paces")),
        ("first crossing", _seconds(_unless_credited(record), ", never ranked")),
        ("interpolated", _seconds(record.interpolated_crossing_s, ", never ranked")),
        ("ended at", _seconds(record.submission_time_s, " of submission time")),
        ("budget", _seconds(detail.spec.budget_ns / 1e9)),
        ("pace", _with_unit(record.pace_s * 1e3, "ms a reference step")),
        ("drift", "" if record.drift is None else f"{record.drift:+.1%}"),
        ("steps", wording.count(record.steps)),
        ("examples", wording.count(record.examples)),
        ("model passes", wording.count(record.model_passes)),
        ("throughput", _with_unit(record.throughput_examples_per_s, "examples/s")),
        ("", _with_unit(record.throughput_passes_per_s, "model passes/s")),
        ("target", wording.target_words(detail.spec.workload.metric)),
        ("best metric", wording.metric_value(record.best_metric)),
        (
            "test metric",
            "" if record.test_metric is None else wording.metric_value(record.test_metric),
        ),
        ("device", record.device),
        ("machine class", record.machine_class),
        ("source", detail.spec.source_sha256[:8]),
    ]
    return [(name, value) for name, value in fields if value]


def _print_curve(detail: RunDetail) -> None:
    metric = detail.spec.workload.metric
    points = [
        (evaluation.elapsed_ns / 1e9, evaluation.value)
        for evaluation in detail.evaluations
        if evaluation.value is not None
    ]
    lines = curve(points, metric.target)
    if lines:
        click.echo(f"\n{metric.name} against submission time; dashed: the target")
        click.echo("\n".join(lines))


def _print_evaluations(detail: RunDetail) -> None:
    if not detail.evaluations:
        return
    rows = [msgspec.structs.asdict(evaluation) for evaluation in detail.evaluations]
    for row in rows:
        row["elapsed_s"] = row["elapsed_ns"] / 1e9
        row["remark"] = ", ".join(
            word for word, said in (("meets", row["meets"]), ("off grid", row["off_grid"])) if said
        )
    left_out = len(rows) - 2 * EVALUATIONS_AT_EACH_END
    if left_out > 0:
        rows = rows[:EVALUATIONS_AT_EACH_END] + rows[-EVALUATIONS_AT_EACH_END:]
    click.echo()
    tables.print_rows(rows, _EVALUATION_COLUMNS, "table")
    if left_out > 0:
        click.echo(f"{left_out} evaluations in the middle are left out; --format json has all.")


_EVALUATION_COLUMNS = [
    Column(field="index", header="evaluation", number=True),
    Column(field="elapsed_s", header="time, s", text=wording.significant, number=True),
    Column(field="steps", header="steps", text=wording.count, number=True),
    Column(field="model_passes", header="model passes", text=wording.count, number=True),
    Column(field="value", header="metric", text=wording.metric_value, number=True),
    Column(field="remark", header=""),
]


def _print_output(directory: RunDirectory) -> None:
    lines = directory.output().rstrip().splitlines()
    if lines:
        click.echo(f"\nlast lines of output ({directory.folder / 'output.txt'})")
        click.echo("\n".join(lines[-OUTPUT_LINES:]))


def _section(title: str, fields: list[tuple[str, str]]) -> None:
    if fields:
        click.echo(f"\n{title}")
        tables.print_fields(fields)


def _telemetry(detail: RunDetail) -> list[tuple[str, str]]:
    fields = []
    for name, figure in detail.telemetry.items():
        if figure is None:
            continue
        if name.endswith("_bytes") and not isinstance(figure, str):
            fields.append((name.removesuffix("_bytes"), wording.size(figure)))
        else:
            fields.append((name, wording.plain(figure)))
    return fields


def _environment(directory: RunDirectory) -> list[tuple[str, str]]:
    environment = directory.environment()
    packages = environment.pop("packages", None)
    fields = _flat(environment)
    if isinstance(packages, dict) and packages:
        torch = f"torch {packages['torch']}, " if "torch" in packages else ""
        fields.append(("packages", f"{torch}{len(packages)} in all: --format json lists them"))
    return fields


def _flat(content: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    fields: list[tuple[str, str]] = []
    for name, value in content.items():
        if isinstance(value, dict):
            fields += _flat(value, f"{prefix}{name}.")
        elif value not in (None, [], ""):
            fields.append((f"{prefix}{name}", wording.plain(value)))
    return fields


def _unless_credited(record: RunRecord) -> float | None:
    first_s = record.first_crossing_s
    return None if first_s == record.time_to_target_s else first_s


def _seconds(value: float | None, remark: str = "") -> str:
    return "" if value is None else f"{wording.seconds(value)}{remark}"


def _with_unit(value: float | None, unit: str) -> str:
    return "" if value is None else f"{wording.significant(value)} {unit}"


def _created(detail: RunDetail) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(detail.spec.created_unix_ns / 1e9, datetime.UTC)


def _sentence(detail: RunDetail, live: bool) -> str:
    record = detail.record
    metric = wording.target_words(detail.spec.workload.metric)
    if live:
        return f"{record.submission} is still on its way to {metric}."
    if record.time_to_target_s is not None:
        text = f"{record.submission} reached {metric} in {wording.seconds(record.time_to_target_s)}"
        return f"{text}, tainted: left out of rankings." if record.tainted else f"{text}."
    return f"{record.submission} did not reach {metric}: {record.outcome}, {record.reason}."
