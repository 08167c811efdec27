"""What marks a run as tainted, and plans without cores to spare."""

import dataclasses
import os

import pytest
from referee.quick_runs import Track

from harness.cores import CorePlan
from harness.run import Plan

SCRIPT = (["steps", 10], ["show", "good"], ["steps", 10], ["show", "good"])


def test_a_pace_that_drifted_taints(track: Track) -> None:
    record = track.perform(*SCRIPT, pace_ns=1000, budget_paces=1e7).record
    assert record.outcome == "reached"
    assert record.drift is not None and record.drift > 2
    assert any("pace drifted by +" in reason for reason in record.tainted)


def test_a_pace_within_the_bound_taints_nothing(track: Track) -> None:
    record = track.perform(*SCRIPT, pace_ns=10_000_000).record  # a bound of 2 is −200 %, too
    assert record.drift is not None and record.drift < 0
    assert not any("drifted" in reason for reason in record.tainted)


def test_a_shared_device_taints(track: Track) -> None:
    record = track.perform(*SCRIPT, share=True).record
    assert record.outcome == "reached"
    assert "the device was shared (--share)" in record.tainted


def test_a_single_core_taints(track: Track) -> None:
    core = min(os.sched_getaffinity(0))

    def on_one_core(chosen: Plan) -> Plan:
        cores = CorePlan(trainee=[core], referee=[core], threads=1, single_core=True)
        return dataclasses.replace(chosen, cores=cores)

    record = track.perform(*SCRIPT, change=on_one_core).record
    assert record.outcome == "reached"
    assert "trainee and referee share a single core" in record.tainted


def test_an_unpinned_plan_runs_as_well(track: Track) -> None:
    def unpinned(chosen: Plan) -> Plan:
        cores = CorePlan(trainee=[], referee=[], threads=1, single_core=False)
        return dataclasses.replace(chosen, cores=cores)

    detail = track.perform(*SCRIPT, change=unpinned)
    assert detail.record.outcome == "reached"
    assert not any("core" in reason and "single" in reason for reason in detail.record.tainted)


def test_a_run_leaves_this_process_on_the_cores_it_had(track: Track) -> None:
    before = os.sched_getaffinity(0)
    if len(before) == 1:
        pytest.skip("one core only")
    track.perform(*SCRIPT)
    assert os.sched_getaffinity(0) == before
