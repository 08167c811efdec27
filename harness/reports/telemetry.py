"""Power, utilisation and memory over a run, thinned to what a figure can show."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.home import runs_folder
from harness.records.run_directory import RunDirectory
from harness.reports.gathering import Gathered, Row
from harness.telemetry.reading import Reading

MOST_POINTS = 120
MOST_RUNS = 40  # over all sections

_MIB = 1 << 20
_Picked = Callable[[Reading], float | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Channel:
    """A quantity of the telemetry: how a reading gives it, and how a stretch of readings does.

    A peak must survive thinning, so memory takes the largest value of a stretch.
    """

    name: str
    label: str
    unit: str
    pick: _Picked
    fold: Callable[[Iterable[float]], float]


def _scaled(field: str, factor: float) -> _Picked:
    def pick(reading: Reading) -> float | None:
        value = getattr(reading, field)
        return None if value is None else value * factor

    return pick


CHANNELS = (
    Channel(
        name="gpu_power_w",
        label="GPU power",
        unit="W",
        pick=_scaled("gpu_power_w", 1),
        fold=statistics.fmean,
    ),
    Channel(
        name="gpu_utilisation",
        label="GPU utilisation",
        unit="%",
        pick=_scaled("gpu_utilisation", 100),
        fold=statistics.fmean,
    ),
    Channel(
        name="cpu_utilisation",
        label="CPU utilisation",
        unit="cores",
        pick=_scaled("cpu_utilisation", 1),
        fold=statistics.fmean,
    ),
    Channel(
        name="gpu_memory_bytes",
        label="GPU memory",
        unit="MiB",
        pick=_scaled("gpu_memory_bytes", 1 / _MIB),
        fold=max,
    ),
    Channel(
        name="memory_bytes",
        label="memory",
        unit="MiB",
        pick=_scaled("memory_bytes", 1 / _MIB),
        fold=max,
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunTelemetry:
    """One run's telemetry while its clock ran, against wall seconds since the clock started.

    Not against submission time: a pause shorter than the sampler's period leaves no reading.
    """

    row: Row
    run: Mapping[str, Any]
    wall_s: Sequence[float]
    channels: Mapping[str, Sequence[float | None]]


def representative_telemetry(
    gathered: Gathered, drawn: Sequence[Sequence[Row]]
) -> list[list[RunTelemetry]]:
    """Return the telemetry of the median run of some rows of each section, best rows first."""
    each = max(1, MOST_RUNS // max(1, len(drawn)))
    return [
        [
            found
            for row in rows[:each]
            if (found := _telemetry(gathered, row, row.median_run)) is not None
        ]
        for rows in drawn[:MOST_RUNS]
    ] + [[] for _ in drawn[MOST_RUNS:]]


def _telemetry(gathered: Gathered, row: Row, run: Mapping[str, Any]) -> RunTelemetry | None:
    readings = RunDirectory(runs_folder(gathered.home) / run["run_id"]).readings()
    found = thinned(row, run, readings)
    return found if len(found.wall_s) > 1 and found.channels else None


def thinned(row: Row, run: Mapping[str, Any], readings: Sequence[Reading]) -> RunTelemetry:
    """Fold the readings on the clock into MOST_POINTS stretches of equal length."""
    timed = [reading for reading in readings if reading.on_clock]
    start_ns = timed[0].wall_ns if timed else 0
    length_ns = (timed[-1].wall_ns - start_ns) // MOST_POINTS + 1 if timed else 1
    stretches: dict[int, list[Reading]] = {}
    for reading in timed:
        stretches.setdefault((reading.wall_ns - start_ns) // length_ns, []).append(reading)
    return RunTelemetry(
        row=row,
        run=run,
        wall_s=[
            statistics.fmean(reading.wall_ns - start_ns for reading in stretch) / 1e9
            for stretch in stretches.values()
        ],
        channels={
            channel.name: [_folded(channel, stretch) for stretch in stretches.values()]
            for channel in CHANNELS
            if any(channel.pick(reading) is not None for reading in timed)
        },
    )


def _folded(channel: Channel, readings: Iterable[Reading]) -> float | None:
    values = [value for reading in readings if (value := channel.pick(reading)) is not None]
    return channel.fold(values) if values else None
