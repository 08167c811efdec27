"""Writes log trees as AlgoPerf does, by hand or from the reference cases' long tables."""

import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

NAN = math.nan

REFERENCE = Path(os.environ.get("BENCH_REFERENCE_DIR", "nowhere"), "algoperf")
needs_reference = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason="needs reference results: set BENCH_REFERENCE_DIR"
)


def write_trial(
    folder: Path, metric: str, evaluations: Sequence[tuple[float, float]], *, end: str = "\n"
) -> Path:
    """Write (seconds, value of the validation metric) as a trial's file; NaN is left empty."""
    lines = [f"global_step,score,train/{metric},validation/{metric}"]
    for step, (seconds, value) in enumerate(evaluations):
        shown = "" if math.isnan(value) else repr(value)
        lines.append(f"{step},{seconds!r},0.5,{shown}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "eval_measurements.csv"
    path.write_text(end.join(lines) + end)
    return path


def write_targets(path: Path, workloads: Mapping[str, tuple[str, float]], *held_out: str) -> Path:
    """Write targets, (metric, value) by workload, as AlgoPerf's file has them."""
    path.write_text(
        json.dumps(
            {
                "_comment": "what nobody needs",
                "benchmark_version": "test",
                "base_workloads": [name for name in workloads if name not in held_out],
                "held_out_workloads": held_out,
                "workloads": {
                    name: {
                        "target_metric_name": metric,
                        "validation_target_value": value,
                        "step_hint": 1000,
                    }
                    for name, (metric, value) in workloads.items()
                },
            }
        )
    )
    return path


def write_case(case: Path, tree: Path) -> None:
    """Write the tree of a reference case: submission/study/workload_framework/trial."""
    trials: dict[tuple[str, ...], tuple[str, list[tuple[float, float]]]] = {}
    with (case / "evals.csv").open() as file:
        for row in csv.DictReader(file):
            workload = f"{row['workload']}_{row['framework']}"
            key = (row["submission"], row["study"], workload, row["trial"])
            value = float(row["value"]) if row["value"] else NAN
            _, evaluations = trials.setdefault(key, (row["metric"], []))
            evaluations.append((float(row["score_seconds"]), value))
    for key, (metric, evaluations) in trials.items():
        write_trial(tree.joinpath(*key), metric, evaluations)
