"""`bench pace`: what it prints of stored paces, for one workload and for a suite."""

import json
from pathlib import Path
from typing import Any

import pytest
from cli.test_bad_input import bench

import harness.run
from harness import catalogue
from harness.cores import plan_cores
from harness.paces import Pace
from harness.run import Plan
from harness.suites import workloads_named


@pytest.fixture(autouse=True)
def stored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def paced(chosen: Plan, say: Any, *, again: bool = False) -> Pace:
        return Pace(
            workload=chosen.card.name,
            workload_version=chosen.card.version,
            machine_class=chosen.machine_class,
            pace_ns=12_000_000,
            quartile_low_ns=11_000_000,
            quartile_high_ns=14_000_000,
            steps=50,
            host="here",
            measured_unix_ns=1_700_000_000 * 10**9,
        )

    monkeypatch.setattr(harness.run, "ensure_pace", paced)
    monkeypatch.setenv("BENCH_RESULTS", str(tmp_path))


def test_a_pace_in_words() -> None:
    before = plan_cores()
    code, out, _ = bench("pace", "-w", "resnet")
    assert plan_cores() == before  # the process has its cores back
    assert code in (0, None)
    assert "resnet/digits v1: 12.000 ms a reference step (quartiles 11.000–14.000 ms, n=50)" in out
    assert "measured 2023-11-14 22:13 UTC" in out
    budget = catalogue.workload("resnet").card.budget_paces
    assert f"Budget: {budget:g} paces = {budget * 0.012:.1f} s." in out


def test_a_suite_is_a_list() -> None:
    _, out, _ = bench("pace", "-w", "@smoke", "--format", "json")
    assert [row["workload"] for row in json.loads(out)] == workloads_named("@smoke")
    _, out, _ = bench("pace", "-w", "mlp,mlp/digits", "--format", "json")
    assert [row["workload"] for row in json.loads(out)] == ["mlp/digits"]
    _, out, _ = bench("pace", "-w", "mlp", "--format", "json")
    assert json.loads(out)["pace_s"] == 0.012
