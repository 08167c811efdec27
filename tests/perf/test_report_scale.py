"""The report of ten thousand runs: within 10 s and 10 MB, whatever they are runs of."""

import dataclasses
import datetime
import os
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from records.synthetic_runs import SyntheticRun, workload_card

from harness.records import index
from harness.reports.gathering import gather
from harness.reports.page import page

pytestmark = pytest.mark.perf

RUNS = int(os.environ.get("BENCH_REPORT_RUNS", "10000"))
MOST_SECONDS = 10.0
MOST_BYTES = 10_000_000
EVALUATIONS = 30
SUBMISSIONS = 25
CARDS = [workload_card(f"family{number}/data") for number in range(8)]
MADE = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture(scope="module", params=["seeds", "trials"])
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that are 200 rows of many seeds, or as many rows as runs, as a tuning has them."""
    folder = tmp_path_factory.mktemp(request.param)
    values = [0.5 + 0.4 * n / EVALUATIONS for n in range(EVALUATIONS - 2)] + [0.95, 0.95]
    run = SyntheticRun(run_id="", values=values, credited=EVALUATIONS - 2)
    for number in range(RUNS):
        submission = number % SUBMISSIONS
        dataclasses.replace(
            run,
            run_id=f"run-{number:06}",
            submission=f"method-{submission}",
            workload=CARDS[number // SUBMISSIONS % len(CARDS)],
            seed=number // (SUBMISSIONS * len(CARDS)),
            hyperparameters={"lr": number + 1 if request.param == "trials" else 1},
            interval_s=1 + submission / 50 + number % 997 / 1000,
            energy_j=100.0 + number % 97,
            taints=["drift"] if number % 11 == 0 else [],
        ).write(folder)
    index.refresh(folder)  # as runs and sweeps do when they end
    return folder


def test_the_page_of_many_runs(benchmark: BenchmarkFixture, home: Path) -> None:
    text = benchmark.pedantic(lambda: page(gather(home, [], [], "cold"), MADE), rounds=2)
    size = len(text.encode())
    benchmark.extra_info |= {"runs": RUNS, "bytes": size}
    assert size <= MOST_BYTES
    assert benchmark.stats.stats.min <= MOST_SECONDS
