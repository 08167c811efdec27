"""The record of a run as one flat row: what `--json` prints and the index holds."""

import msgspec

from harness.cards import Scalar
from harness.events import Ended, Evaluation, Event, NoteTaken, Outcome, Started
from harness.records.run_directory import RunDirectory
from harness.spec import RunSpec

NANO = 1e-9


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One run. Missing is None, never 0; units are in the names."""

    run_id: str
    submission: str
    workload: str
    workload_version: int
    seed: int
    hyperparameters: dict[str, Scalar]
    tuning_effort: str
    outcome: Outcome
    reason: str
    tainted: list[str]  # the reasons; empty: untainted
    time_to_target_s: float | None
    time_without_compile_s: float | None  # time to target less compilation
    first_crossing_s: float | None
    interpolated_crossing_s: float | None
    submission_time_s: float
    normalised_time: float | None  # time to target ÷ pace
    pace_s: float
    drift: float | None  # pace after the run ÷ stored pace − 1
    steps: int
    examples: int
    model_passes: int
    evaluations: int
    target: float
    best_metric: float | None
    test_metric: float | None  # at the credited evaluation
    throughput_examples_per_s: float | None
    throughput_passes_per_s: float | None
    peak_memory_bytes: int | None
    peak_memory_above_idle_bytes: int | None
    gpu_peak_memory_bytes: int | None
    energy_j: float | None
    energy_source: str | None
    export_s: float
    evaluation_s: float
    device: str
    machine_class: str


class RunDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A run with all that its directory tells."""

    record: RunRecord
    spec: RunSpec
    evaluations: list[Evaluation]
    notes: list[NoteTaken]
    telemetry: dict[str, float | int | str | None]
    traceback: str | None
    started_unix_ns: int | None
    import_s: float | None
    steps_to_target: int | None
    examples_to_target: int | None
    model_passes_to_target: int | None


def read_run(directory: RunDirectory) -> RunDetail:
    """Return the run in `directory`; without an end in its log it was interrupted.

    Raises:
        OSError, msgspec.MsgspecError: the specification is missing or damaged.
    """
    return summarise(directory.spec(), directory.events())


def summarise(spec: RunSpec, events: list[Event]) -> RunDetail:
    """Fold a run's events into its record.

    Raises:
        msgspec.ValidationError: the evaluation that counts is missing from the log.
    """
    evaluations = [event for event in events if isinstance(event, Evaluation)]
    started = next((event for event in events if isinstance(event, Started)), None)
    ended = next((event for event in events if isinstance(event, Ended)), None)
    if ended is None:
        ended = _interrupted(evaluations)
    by_index = {evaluation.index: evaluation for evaluation in evaluations}
    for index in (ended.credited, ended.first_crossing):
        if index is not None and index not in by_index:
            raise msgspec.ValidationError(f"the event log has lost evaluation {index}")
    credited = None if ended.credited is None else by_index[ended.credited]
    first = None if ended.first_crossing is None else by_index[ended.first_crossing]
    best: float | None = None
    for evaluation in evaluations:
        if evaluation.value is not None and spec.workload.metric.better(evaluation.value, best):
            best = evaluation.value
    elapsed_s = ended.elapsed_ns * NANO
    telemetry = ended.telemetry
    record = RunRecord(
        run_id=spec.run_id,
        submission=spec.submission,
        workload=spec.workload.name,
        workload_version=spec.workload.version,
        seed=spec.seed,
        hyperparameters=spec.hyperparameters,
        tuning_effort=spec.tuning_effort,
        outcome=ended.outcome,
        reason=ended.reason,
        tainted=ended.taints,
        time_to_target_s=_seconds(credited.elapsed_ns if credited else None),
        time_without_compile_s=_seconds(
            credited.elapsed_ns - credited.compile_ns if credited else None
        ),
        first_crossing_s=_seconds(first.elapsed_ns if first else None),
        interpolated_crossing_s=_seconds(ended.interpolated_crossing_ns),
        submission_time_s=elapsed_s,
        normalised_time=credited.elapsed_ns / spec.pace_ns if credited else None,
        pace_s=spec.pace_ns * NANO,
        drift=ended.pace_after_ns / spec.pace_ns - 1 if ended.pace_after_ns else None,
        steps=ended.steps,
        examples=ended.examples,
        model_passes=ended.model_passes,
        evaluations=len(evaluations),
        target=spec.workload.metric.target,
        best_metric=best,
        test_metric=credited.test_value if credited else None,
        throughput_examples_per_s=ended.examples / elapsed_s if elapsed_s else None,
        throughput_passes_per_s=ended.model_passes / elapsed_s if elapsed_s else None,
        peak_memory_bytes=_integer(telemetry.get("peak_memory_bytes")),
        peak_memory_above_idle_bytes=_integer(telemetry.get("peak_memory_above_idle_bytes")),
        gpu_peak_memory_bytes=_integer(telemetry.get("gpu_peak_memory_bytes")),
        energy_j=_number(telemetry.get("energy_j")),
        energy_source=_text(telemetry.get("energy_source")),
        export_s=sum(evaluation.export_ns for evaluation in evaluations) * NANO,
        evaluation_s=sum(evaluation.evaluation_ns for evaluation in evaluations) * NANO,
        device=spec.device,
        machine_class=spec.machine_class,
    )
    return RunDetail(
        record=record,
        spec=spec,
        evaluations=evaluations,
        notes=[event for event in events if isinstance(event, NoteTaken)],
        telemetry=telemetry,
        traceback=ended.traceback,
        started_unix_ns=started.unix_ns if started else None,
        import_s=started.import_ns * NANO if started else None,
        steps_to_target=credited.steps if credited else None,
        examples_to_target=credited.examples if credited else None,
        model_passes_to_target=credited.model_passes if credited else None,
    )


def _interrupted(evaluations: list[Evaluation]) -> Ended:
    """Return the end of a run whose referee died: all it is known to have done."""
    last = evaluations[-1] if evaluations else None
    first = next((evaluation for evaluation in evaluations if evaluation.meets), None)
    return Ended(
        outcome="interrupted",
        reason="the referee ended without a word (killed, the disk full, or the machine went down)",
        traceback=None,
        elapsed_ns=last.elapsed_ns if last else 0,
        compile_ns=last.compile_ns if last else 0,
        steps=last.steps if last else 0,
        examples=last.examples if last else 0,
        model_passes=last.model_passes if last else 0,
        credited=None,
        first_crossing=first.index if first else None,
        interpolated_crossing_ns=None,
        taints=[],
        pace_after_ns=None,
        telemetry={},
    )


def _seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds * NANO


def _integer(value: object) -> int | None:
    return None if value is None else int(value)  # type: ignore[call-overload]


def _number(value: object) -> float | None:
    return None if value is None else float(value)  # type: ignore[arg-type]


def _text(value: object) -> str | None:
    return None if value is None else str(value)
