"""Reading AlgoPerf's logs and scoring them, against a loop over the same files.

The loop reads each file with the standard library's csv and converts three of its columns, which
is the least that scoring takes; reading keeps all of them.
"""

import csv
import random
import statistics
import tarfile
import time
from pathlib import Path

import pytest
from interop.algoperf_tree import REFERENCE, needs_reference
from perf.paired_ratio import measure_pairs, paired_ratio
from pytest_benchmark.fixture import BenchmarkFixture

from harness.interop.algoperf.logs import FILE, read_logs
from harness.interop.algoperf.scoring import pool_of
from harness.interop.algoperf.targets import targets_named
from harness.judging.standings import standings

pytestmark = pytest.mark.perf

FILES = 600
EVALUATIONS = 60
PAIRS = 5
FULL_SET_S = 2.0
METRICS = {"fastmri": "ssim", "wmt": "bleu"}


def read_and_score(tree: Path, targets: str) -> dict[str, float]:
    logs = read_logs(tree)
    of = pool_of(
        logs.evaluations.lazy(),
        logs.trials.lazy(),
        targets_named(targets),
        "external_tuning",
        "documented",
    )
    return {row.submission: row.score for row in standings(of)}


def csv_loop(tree: Path, metrics: dict[str, str]) -> int:
    rows = 0
    for path in tree.rglob(FILE):
        workload = path.parts[-3].rpartition("_")[0]
        column = f"validation/{metrics[workload]}"
        with path.open() as file:
            for row in csv.DictReader(file):
                rows += 1
                _ = float(row["score"]), float(row["global_step"]), float(row[column] or "nan")
    return rows


def seconds(call: object, *arguments: object) -> float:
    start = time.perf_counter()
    call(*arguments)  # type: ignore[operator]
    return time.perf_counter() - start


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many columns as theirs have, on two workloads."""
    generator = random.Random(0)
    tree = tmp_path_factory.mktemp("logs")
    for number in range(FILES):
        workload = list(METRICS)[number % 2]
        metric = METRICS[workload]
        folder = (
            tree
            / "external_tuning"
            / f"method_{number // 60}"
            / f"study_{number // 12 % 5}"
            / f"{workload}_jax"
            / f"trial_{number // 2 % 6}"
        )
        folder.mkdir(parents=True)
        names = ["score", "global_step", f"validation/{metric}"]
        names += [f"{split}/figure_{n}" for split in ("train", "test") for n in range(6)]
        with (folder / FILE).open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(names)
            for step in range(EVALUATIONS):
                values = [generator.random() for _ in names[2:]]
                writer.writerow([10.5 * step + generator.random(), step, *values])
    return tree


def test_against_a_loop_over_the_same_files(benchmark: BenchmarkFixture, synthetic: Path) -> None:
    assert csv_loop(synthetic, METRICS) == FILES * EVALUATIONS
    assert len(read_and_score(synthetic, "v0.6")) == 10

    def loop() -> float:
        return seconds(csv_loop, synthetic, METRICS)

    def ours() -> float:
        return seconds(read_and_score, synthetic, "v0.6")

    looped, scored = measure_pairs(loop, ours, PAIRS)
    found = paired_ratio(looped, scored)
    benchmark.extra_info |= found.as_info()
    benchmark.pedantic(ours, rounds=1)
    assert found.low > 1


@needs_reference
def test_the_full_set_of_v05(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    with tarfile.open(REFERENCE / "algoperf_v05_external.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    found = benchmark.pedantic(read_and_score, (tmp_path, "v0.5"), rounds=5, warmup_rounds=1)
    assert max(found, key=found.__getitem__) == "shampoo_submission"
    assert len(list(tmp_path.rglob(FILE))) == 3718
    assert statistics.median(benchmark.stats.stats.data) <= FULL_SET_S
