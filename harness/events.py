"""What happens in a run, as it is written to the run's event log, one JSON object a line."""

from typing import Literal

import msgspec

Outcome = Literal[
    "reached",
    "budget",
    "diverged",
    "out_of_memory",
    "crashed",
    "timeout",
    "interrupted",
    "stopped",
    "skipped",
    "disqualified",
]


class Started(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The clock started: the submission now builds its state."""

    unix_ns: int
    import_ns: int  # importing the submission's code, off the clock


class Evaluation(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One evaluation; counts and times are totals since the start, at the clock's stop."""

    index: int
    elapsed_ns: int
    compile_ns: int
    steps: int
    examples: int
    model_passes: int
    value: float | None  # of the metric that decides; None: not a number
    metrics: dict[str, float | None]
    meets: bool
    off_grid: bool
    test_value: float | None  # measured where the target was met, never decides
    export_ns: int
    evaluation_ns: int
    gpu_peak_allocated_bytes: int | None


class NoteTaken(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A figure the submission reported."""

    elapsed_ns: int
    key: str
    value: str


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The run's end; the last line of a complete log."""

    outcome: Outcome
    reason: str
    traceback: str | None
    elapsed_ns: int
    compile_ns: int
    steps: int
    examples: int
    model_passes: int
    credited: int | None  # index of the evaluation whose time is credited
    first_crossing: int | None  # index of the first evaluation that met the target
    interpolated_crossing_ns: int | None
    taints: list[str]
    pace_after_ns: int | None
    telemetry: dict[str, float | int | str | None]  # a TelemetrySummary, without its taints


Event = Started | Evaluation | NoteTaken | Ended
