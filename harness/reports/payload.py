"""The figures of the page as compact data; `page/report.js` draws them."""

from collections.abc import Mapping, Sequence
from typing import Any

from harness.reports.appearance import DARK, DASHES, LIGHT, MARKERS, Look, dash
from harness.reports.curves import Points, Series
from harness.reports.gathering import Gathered, Row, Section
from harness.reports.profiles import Profile
from harness.reports.telemetry import CHANNELS, RunTelemetry
from harness.wording import target_words

SIGNIFICANT = 5  # digits: a figure a thousand pixels wide shows three


def payload(
    gathered: Gathered,
    looks: Mapping[str, Look],
    curves: Sequence[Sequence[Series]],
    telemetry: Sequence[Sequence[RunTelemetry]],
    pareto: Sequence[Mapping[str, Any]],
    profiles: Sequence[Profile],
) -> dict[str, Any]:
    """Return what the page's figures are drawn from."""
    numbers = {name: number for number, name in enumerate(looks)}
    return {
        "submissions": [
            {"name": name, "colour": look.colour, "marker": look.marker}
            for name, look in looks.items()
        ],
        "palette": {"light": LIGHT, "dark": DARK},
        "markers": [marker for marker, _ in MARKERS],
        "dashes": [name for name, _ in DASHES],
        "channels": {
            channel.name: {"label": channel.label, "unit": channel.unit} for channel in CHANNELS
        },
        "sections": [
            _section(section, numbers, series, readings, _of(section, pareto))
            for section, series, readings in zip(gathered.sections, curves, telemetry, strict=True)
        ],
        "profiles": [_profile(profile, numbers) for profile in profiles],
    }


def _of(section: Section, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    key = (section.workload, section.version, section.machine_class)
    return [
        row
        for row in rows
        if (row["workload"], row["workload_version"], row["machine_class"]) == key
    ]


def _section(
    section: Section,
    numbers: Mapping[str, int],
    series: Sequence[Series],
    telemetry: Sequence[RunTelemetry],
    pareto: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    metric = section.spec.workload.metric
    efforts = section.efforts
    return {
        "title": f"{section.workload} v{section.version}",
        "metric": metric.name,
        "rising": metric.direction == "maximise",
        "target": metric.target if metric.within_reach else None,
        "targetWords": target_words(metric),
        "curves": [
            {
                **_row(one.row, numbers, efforts),
                "median": None if one.median is None else _points(one.median),
                "traces": [
                    {
                        "seed": trace.run["seed"],
                        "run": trace.run["run_id"],
                        "outcome": trace.run["outcome"],
                        "tainted": bool(trace.run["tainted"]),
                        "points": _points(trace.points),
                    }
                    for trace in one.traces
                ],
            }
            for one in series
        ],
        "pareto": [
            {
                "submission": numbers[row["submission"]],
                "effort": row["tuning_effort"],
                "dash": dash(row["tuning_effort"], efforts),
                "time": compact(row["time_s"]),
                "memory": compact(row["memory_bytes"], 1 / (1 << 20)),
                "energy": compact(row["energy_j"]),
                "front": row["pareto_front"],
            }
            for row in pareto
        ],
        "telemetry": [
            {
                **_row(one.row, numbers, efforts),
                "run": one.run["run_id"],
                "seed": one.run["seed"],
                "outcome": one.run["outcome"],
                "wall": [compact(value) for value in one.wall_s],
                "channels": {
                    name: [compact(value) for value in values]
                    for name, values in one.channels.items()
                },
            }
            for one in telemetry
        ],
    }


def _row(row: Row, numbers: Mapping[str, int], efforts: Sequence[str]) -> dict[str, Any]:
    return {
        "submission": numbers[row.submission],
        "effort": row.effort,
        "dash": dash(row.effort, efforts),
        "runs": row.figures["runs"],
    }


def _points(points: Points) -> dict[str, Any]:
    return {
        "time": [compact(value) for value in points.elapsed_s],
        "steps": _multiple(points.steps, points.steps),
        "examples": _multiple(points.examples, points.steps),
        "passes": _multiple(points.model_passes, points.steps),
        "value": [compact(value) for value in points.value],
    }


def _multiple(values: Sequence[float], steps: Sequence[float]) -> Any:
    """Return the examples of a step instead of every sum where they are as many in each."""
    if values is not steps and values and steps[0]:
        each = values[0] / steps[0]
        if all(value == each * step for value, step in zip(values, steps, strict=True)):
            return compact(each)
    return [compact(value, digits=9) for value in values]


def _profile(profile: Profile, numbers: Mapping[str, int]) -> dict[str, Any]:
    return {
        "taus": [compact(tau) for tau in profile.taus],
        "series": [
            {
                "submission": numbers[name],
                "entry": entry,
                "shares": [compact(share) for share in shares],
            }
            for name, entry, shares in zip(
                profile.submissions, profile.entries, profile.shares, strict=True
            )
        ],
    }


def compact(value: float | None, factor: float = 1.0, digits: int = SIGNIFICANT) -> Any:
    """Return a number with so many significant digits, whole ones without a point."""
    if value is None:
        return None
    rounded = float(f"{value * factor:.{digits}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded
