"""A against A for real: what a comparison says where there is nothing to find."""

from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.run import Request
from harness.sweeps.contest import Contest, Terms
from harness.sweeps.jobs import Job
from harness.sweeps.local import LocalExecutor, local_slots
from harness.sweeps.pairs import match
from harness.sweeps.worker import Refused, Report

pytestmark = pytest.mark.perf

PAIRS = 6
FEWEST = 4


class _Watcher:
    def __init__(self) -> None:
        self.refused: list[str] = []

    def reported(self, slot: int, job: Job, report: Report) -> None:
        if isinstance(report, Refused):
            self.refused.append(report.reason)


@pytest.mark.timeout(2400)
def test_adamw_against_itself_on_resnet_shows_no_difference(
    benchmark: BenchmarkFixture, tmp_path: Path
) -> None:
    asked = Request(submission="adamw", workload="resnet", device="cpu", home=tmp_path)
    terms = Terms(seeds=range(PAIRS), until_decided=False, alpha=0.01, effect=0.05, clock="cold")
    watcher = _Watcher()
    contest = Contest(tmp_path, [match(asked, asked)], terms)
    [result] = contest.run(
        LocalExecutor(local_slots("cpu", 1)), watcher, lambda: bool(watcher.refused)
    )
    assert watcher.refused == []
    found = result.comparison
    benchmark.extra_info |= {
        "ratio": found.ratio, "low": found.low, "high": found.high, "p": found.p,
        "pairs": found.pairs, "further_pairs_for_5_percent": result.further_pairs,
        "left_out": [taint for pair in result.left_out for taint in pair.taints],
        "seconds": [(p.a.time_to_target_s, p.b.time_to_target_s) for p in result.counted],
    }  # fmt: skip
    benchmark.pedantic(lambda: None, rounds=1)  # the figures are in extra_info
    if found.pairs < FEWEST:
        pytest.skip(f"the machine is too busy: {benchmark.extra_info['left_out']}")
    # One experiment in a hundred may call equals different.
    assert found.verdict == "no difference shown", found
    assert found.low is not None and found.high is not None
    assert found.low <= 1 <= found.high
    # One seed on both sides is one training: nothing but the machine may differ.
    assert {p.a.steps_to_target == p.b.steps_to_target for p in result.counted} == {True}
