"""Ingest, resume planning and leaderboard grow with the number of runs, and no faster.

BENCH_SCALE_RUNS sets the larger number of runs; the smaller one is a quarter of it. A run has
30 evaluations, so 100,000 are three million; they take 5 GB of disk and some twenty minutes:

    BENCH_SCALE_RUNS=100000 make perf ARGS=tests/perf/test_scale.py
"""

import dataclasses
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from records.synthetic_runs import MACHINE, SyntheticRun

from harness.home import index_path
from harness.judging.leaderboard import leaderboard
from harness.records import index, parquet
from harness.run import Request
from harness.sweeps.jobs import Job
from harness.sweeps.status import Retry, standing

RUNS = int(os.environ.get("BENCH_SCALE_RUNS", "4000"))
EVALUATIONS = 30
LINEAR = 1.3  # the exponent: four times the runs may take six times as long, for caches and noise
LEADERBOARD_S = 3.0  # for 100,000 runs

pytestmark = [pytest.mark.perf, pytest.mark.timeout(300 + RUNS // 20)]


def home_with(folder: Path, count: int) -> Path:
    values = [0.5 + 0.4 * n / EVALUATIONS for n in range(EVALUATIONS - 2)] + [0.95, 0.95]
    run = SyntheticRun(run_id="", values=values, credited=EVALUATIONS - 2)
    for number in range(count):
        dataclasses.replace(
            run,
            run_id=f"run-{number:06}",
            submission=f"method-{number % 50}",
            seed=number // 50,
            identity=f"{number:032}",
            interval_s=1 + number % 997 / 1000,  # equal times would make medians easy
        ).write(folder)
    return folder


def jobs(count: int) -> list[Job]:
    return [
        Job(
            request=Request(submission="x", workload="mlp", home=Path("nowhere")),
            seed=number // 50,
            identity=f"{number:032}",
            submission=f"method-{number % 50}",
            workload="mlp/digits",
            machine_class=MACHINE,
        )
        for number in range(count + 10)
    ]


def cpu_seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)  # half of the time that making them takes
        return {
            count: home_with(tmp_path_factory.mktemp(f"runs-{count}"), count)
            for count in (RUNS // 4, RUNS)
        }


def linear(
    benchmark: BenchmarkFixture, homes: dict[int, Path], call: Callable[[int, Path], object]
) -> float:
    """Return the seconds for all the runs, which the benchmark records; check the growth.

    The growth is that of the processor's time, to which other processes add little.
    """
    few, many = homes
    small = min(cpu_seconds(lambda: call(few, homes[few])) for _ in range(2))
    took: list[float] = []
    benchmark.pedantic(lambda: took.append(cpu_seconds(lambda: call(many, homes[many]))), rounds=2)
    exponent = math.log(min(took) / small) / math.log(many / few)
    benchmark.extra_info |= {"runs": many, "growth_exponent": exponent, "cpu_s": min(took)}
    assert exponent < LINEAR
    return benchmark.stats.stats.min


def test_ingest(benchmark: BenchmarkFixture, homes: dict[int, Path]) -> None:
    def ingest(count: int, home: Path) -> None:
        index_path(home).unlink(missing_ok=True)
        assert index.rebuild(home).indexed == count

    linear(benchmark, homes, ingest)


def test_resume_planning(benchmark: BenchmarkFixture, homes: dict[int, Path]) -> None:
    asked = {count: jobs(count) for count in homes}

    def plan(count: int, home: Path) -> None:
        assert len(standing(home, asked[count], Retry()).queued) == 10

    linear(benchmark, homes, plan)


def test_leaderboard(benchmark: BenchmarkFixture, homes: dict[int, Path]) -> None:
    def rank(count: int, home: Path) -> None:
        assert leaderboard(home, None, "cold")["runs"].sum() == count

    assert linear(benchmark, homes, rank) < LEADERBOARD_S * max(RUNS / 100_000, 0.1)


def test_leaderboard_of_parquet_files(
    benchmark: BenchmarkFixture, homes: dict[int, Path], tmp_path: Path
) -> None:
    for count, home in homes.items():
        parquet.export(home, tmp_path / str(count), "home")

    def rank(count: int, home: Path) -> None:
        files = str(tmp_path / str(count) / "*.parquet")
        assert leaderboard(home, None, "cold", files)["runs"].sum() == count

    assert linear(benchmark, homes, rank) < LEADERBOARD_S * max(RUNS / 100_000, 0.1)
