"""How long people wait before anything happens, as ratios to what cannot be avoided."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from perf.paired_ratio import measure_pairs, paired_ratio
from pytest_benchmark.fixture import BenchmarkFixture

from harness.events import Started
from harness.records.run_directory import RunDirectory, run_directories

pytestmark = pytest.mark.perf

BENCH = [sys.executable, "-m", "harness.cli"]
ROOT = Path(__file__).parents[2]
BARE_START = """
import sys, time
import torch
from safetensors.torch import load_file
data = load_file(sys.argv[1])
imported = time.time_ns()
torch.set_num_threads(1)
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
optimizer = torch.optim.AdamW(model.parameters())
torch.nn.functional.cross_entropy(model(data["images"]), data["labels"]).backward()
optimizer.step()
print(imported, time.time_ns())
"""


def command_s(command: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - begun


@pytest.mark.parametrize(
    ("arguments", "times"), [(["--help"], 2.0), (["list", "workloads"], 4.0)], ids=["help", "list"]
)
def test_reading_commands_answer_at_once(
    benchmark: BenchmarkFixture, arguments: list[str], times: float
) -> None:
    bare = [sys.executable, "-c", "import click, rich"]
    ours = [*BENCH, *arguments]
    command_s(bare), command_s(ours)
    found = paired_ratio(*measure_pairs(lambda: command_s(ours), lambda: command_s(bare), 15))
    benchmark.extra_info |= found.as_info()
    benchmark.pedantic(lambda: command_s(ours), rounds=5)
    assert found.ratio <= times, found


def first_step_s(home: Path) -> float:
    """Seconds from the command to its first training step, with a stored pace."""
    begun_ns = time.time_ns()
    subprocess.run(
        [*BENCH, "run", "-s", "adamw", "-w", "resnet", "--results", str(home), "--budget", "20"],
        cwd=ROOT,
        check=False,
        capture_output=True,
    )
    newest = list(run_directories(home / "runs"))[-1]
    started = next(event for event in newest.events() if isinstance(event, Started))
    return (started.unix_ns - begun_ns + newest.spec().pace_ns) / 1e9


def bare_s(data: Path) -> tuple[float, float]:
    """Seconds to having torch and the data, and to a first optimizer step, in a bare script."""
    begun_ns = time.time_ns()
    result = subprocess.run(
        [sys.executable, "-c", BARE_START, str(data)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    imported, stepped = map(int, result.stdout.split())
    return (imported - begun_ns) / 1e9, (stepped - begun_ns) / 1e9


@pytest.mark.timeout(600)
def test_training_begins_soon_after_the_command(
    benchmark: BenchmarkFixture, tmp_path: Path
) -> None:
    from harness.prepared_paths import split_path

    first_step_s(tmp_path)  # stores the pace, fills the cache
    spec = RunDirectory(next((tmp_path / "runs").iterdir())).spec()
    data = split_path(spec.workload, "training")
    imports: list[float] = []

    def bare() -> float:
        imported_s, stepped_s = bare_s(data)
        imports.append(imported_s)
        return stepped_s

    ours, bare_first_step = measure_pairs(lambda: first_step_s(tmp_path), bare, pairs=8)
    found = paired_ratio(ours, bare_first_step)
    benchmark.extra_info |= found.as_info()
    # Any script with a torch.optim optimizer also loads torch's compiler; hence two ratios.
    benchmark.extra_info["to_import_and_data"] = paired_ratio(ours, imports).as_info()
    benchmark.pedantic(bare, rounds=1)
    assert found.ratio <= 1.5, found
