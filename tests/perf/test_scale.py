"""Ingest, resume planning and leaderboard grow with the number of runs, and no faster.

BENCH_SCALE_RUNS sets the larger number of runs; the smaller one is a quarter of it. A run has
30 evaluations, so 100,000 are three million.
"""

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from records.synthetic_runs import MACHINE, SyntheticRun

from harness.home import index_path
from harness.judging.leaderboard import leaderboard
from harness.records import index
from harness.run import Request
from harness.sweeps.jobs import Job
from harness.sweeps.status import Retry, standing

pytestmark = pytest.mark.perf

RUNS = int(os.environ.get("BENCH_SCALE_RUNS", "4000"))
EVALUATIONS = 30
LINEAR = 1.5  # four times the runs may take six times as long, for caches and noise
LEADERBOARD_S = 3.0  # for 100,000 runs


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


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    return {
        count: home_with(tmp_path_factory.mktemp(f"runs-{count}"), count)
        for count in (RUNS // 4, RUNS)
    }


def fewer_and_more(
    benchmark: BenchmarkFixture, homes: dict[int, Path], call: Callable[[int, Path], object]
) -> tuple[float, float]:
    """Return the seconds for a quarter of the runs, and those that the benchmark records."""
    few, many = homes
    small = min(seconds(lambda: call(few, homes[few])) for _ in range(2))
    benchmark.pedantic(lambda: call(many, homes[many]), rounds=2)
    large = benchmark.stats.stats.min
    benchmark.extra_info |= {"runs": many, "over_linear": large / small * few / many}
    return small, large


def test_ingest(benchmark: BenchmarkFixture, homes: dict[int, Path]) -> None:
    def ingest(count: int, home: Path) -> None:
        index_path(home).unlink(missing_ok=True)
        assert index.rebuild(home).indexed == count

    small, large = fewer_and_more(benchmark, homes, ingest)
    assert large / small < 4 * LINEAR


def test_resume_planning(benchmark: BenchmarkFixture, homes: dict[int, Path]) -> None:
    def plan(count: int, home: Path) -> None:
        assert len(standing(home, jobs(count), Retry()).queued) == 10

    small, large = fewer_and_more(benchmark, homes, plan)
    assert large / small < 4 * LINEAR


def test_leaderboard(benchmark: BenchmarkFixture, homes: dict[int, Path]) -> None:
    def rank(count: int, home: Path) -> None:
        assert len(leaderboard(home, None, "cold")) == 50

    small, large = fewer_and_more(benchmark, homes, rank)
    assert large / small < 4 * LINEAR
    assert large < LEADERBOARD_S * max(RUNS / 100_000, 0.1)
