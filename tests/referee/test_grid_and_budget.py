"""Where evaluations fall, what the clock counts, and where a run ends, by a scripted trainee."""

import pytest
from referee.quick_runs import Track

STEP_10_MS = 10_000_000
GRID_INTERVAL_NS = 10 * STEP_10_MS


def test_a_target_met_twice_running_is_credited_with_the_first(track: Track) -> None:
    detail = track.perform(
        ["steps", 10], ["show", "bad"], ["steps", 10], ["show", "good"], ["steps", 10],
        ["show", "good"],
    )  # fmt: skip
    record, evaluations = detail.record, detail.evaluations
    assert record.outcome == "reached", record.reason
    assert [e.meets for e in evaluations] == [False, True, True]
    assert [e.model_passes for e in evaluations] == [960, 1920, 2880]
    assert record.time_to_target_s == pytest.approx(evaluations[1].elapsed_ns / 1e9)
    assert detail.steps_to_target == 20
    assert record.test_metric == evaluations[1].test_value is not None
    # The test split is looked at where the target was met, never before.
    assert evaluations[0].test_value is None
    assert evaluations[0].elapsed_ns < record.interpolated_crossing_s * 1e9  # type: ignore[operator]
    assert record.interpolated_crossing_s < record.first_crossing_s  # type: ignore[operator]


def test_several_points_crossed_in_a_step_give_one_evaluation(track: Track) -> None:
    detail = track.perform(
        ["steps", 35], ["show", "bad"], ["steps", 5], ["show", "bad"], ["finish"]
    )  # fmt: skip
    assert [e.steps for e in detail.evaluations] == [35, 40]
    assert not any(e.off_grid for e in detail.evaluations)


def test_an_evaluation_before_it_is_due_disqualifies(track: Track) -> None:
    record = track.perform(["steps", 35], ["show", "bad"], ["steps", 4], ["show", "good"]).record
    assert record.outcome == "disqualified"
    assert "before the one due at 3,840" in record.reason and record.evaluations == 1


def test_four_intervals_without_an_evaluation_force_one_off_the_grid(track: Track) -> None:
    detail = track.perform(
        ["steps", 3], ["await_force"], ["show", "bad"], ["steps", 7], ["show", "bad"], ["finish"],
        pace_ns=STEP_10_MS,
    )  # fmt: skip
    forced, regular = detail.evaluations
    assert forced.off_grid and forced.elapsed_ns > 4 * GRID_INTERVAL_NS
    assert not regular.off_grid and regular.steps == 10


def test_the_clock_stands_still_during_export_and_evaluation(
    track: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUICK_EVALUATION_SLEEP_S", "0.6")
    detail = track.perform(
        ["steps", 10], ["announce"], ["sleep", 0.6], ["export", "bad"], ["go_on"], ["finish"]
    )  # fmt: skip
    (evaluation,) = detail.evaluations
    assert evaluation.export_ns > 0.5e9 and evaluation.evaluation_ns > 0.5e9
    assert detail.record.submission_time_s < 0.5


def test_what_happens_before_an_evaluation_is_on_the_clock(track: Track) -> None:
    detail = track.perform(["sleep", 0.3], ["steps", 10], ["show", "bad"], ["finish"])
    assert detail.evaluations[0].elapsed_ns > 0.3e9
    assert detail.record.submission_time_s > 0.3


def test_the_budget_ends_a_run(track: Track) -> None:
    record = track.perform(
        ["steps", 10], ["show", "bad"], ["sleep", 1000], pace_ns=STEP_10_MS, budget_paces=30
    ).record
    assert (record.outcome, record.reason) == ("budget", "the budget is used up")
    assert record.submission_time_s > 0.3 and record.time_to_target_s is None


def test_the_confirming_evaluation_may_lie_beyond_the_budget(track: Track) -> None:
    detail = track.perform(
        ["steps", 10], ["show", "good"], ["sleep", 0.6], ["steps", 10], ["show", "good"],
        pace_ns=STEP_10_MS, budget_paces=40,
    )  # fmt: skip
    assert detail.record.outcome == "reached"
    first, confirming = detail.evaluations
    assert first.elapsed_ns <= detail.spec.budget_ns < confirming.elapsed_ns
    assert detail.record.time_to_target_s == pytest.approx(first.elapsed_ns / 1e9)


def test_without_a_confirmation_the_outcome_is_budget(track: Track) -> None:
    detail = track.perform(
        ["steps", 10], ["show", "good"], ["sleep", 0.6], ["steps", 10], ["show", "bad"],
        pace_ns=STEP_10_MS, budget_paces=40,
    )  # fmt: skip
    record = detail.record
    assert record.outcome == "budget" and record.reason.startswith("unconfirmed")
    assert record.time_to_target_s is None and record.first_crossing_s is not None
    assert record.evaluations == 2


def test_a_submission_that_ends_its_training_is_out_of_budget(track: Track) -> None:
    record = track.perform(["steps", 10], ["show", "good"], ["finish"]).record
    assert record.outcome == "budget"
    assert record.reason.startswith("unconfirmed") and "it had enough" in record.reason


def test_work_is_counted_up_to_the_end(track: Track) -> None:
    record = track.perform(["steps", 10], ["show", "bad"], ["steps", 3], ["finish"]).record
    assert (record.steps, record.examples, record.model_passes) == (13, 13 * 32, 13 * 96)


def test_a_loss_that_was_not_finite_denies_the_target(track: Track) -> None:
    record = track.perform(
        ["steps", 10], ["show", "good"], ["lose"], ["steps", 10], ["show", "good"]
    ).record
    assert record.outcome == "diverged" and "training loss" in record.reason
    assert record.time_to_target_s is None


def test_compilation_is_subtracted_in_the_second_time(track: Track) -> None:
    detail = track.perform(
        ["sleep", 0.2], ["steps", 10], ["show", "good", 100_000_000], ["steps", 10],
        ["show", "good", 150_000_000],
    )  # fmt: skip
    record = detail.record
    assert [e.compile_ns for e in detail.evaluations] == [100_000_000, 150_000_000]
    assert record.time_without_compile_s == pytest.approx(record.time_to_target_s - 0.1)  # type: ignore[operator]


def test_a_run_can_be_stopped_after_an_evaluation_that_settles_nothing(track: Track) -> None:
    detail = track.perform(
        ["steps", 10], ["show", "bad"], ["steps", 10], ["show", "bad"], ["steps", 10],
        ["show", "bad"],
        stopped=lambda evaluation: "enough seen" if evaluation.index == 1 else None,
    )  # fmt: skip
    record = detail.record
    assert (record.outcome, record.reason, record.evaluations) == ("stopped", "enough seen", 2)
    assert record.time_to_target_s is None


def test_an_evaluation_that_settles_the_run_comes_before_a_stop(track: Track) -> None:
    detail = track.perform(
        ["steps", 10], ["show", "good"], ["steps", 10], ["show", "good"],
        stopped=lambda evaluation: "enough seen" if evaluation.index == 1 else None,
    )  # fmt: skip
    assert detail.record.outcome == "reached"
