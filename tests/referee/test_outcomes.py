"""Every outcome by a real run: a real trainee, a submission that does what the outcome needs.

A real trainee takes seconds to start. What differs from another run in the submission alone, and
is scripted in test_protocol, is among the slow tests.
"""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from referee.quick_runs import PLUGINS, QUICKLY, Track, Witness, is_alive, processes_of_runs

from harness.records.record import RunDetail
from harness.spec import RunSpec

IMPORT_FAILURE = f"{PLUGINS / 'timetrial_quick' / 'raises_at_import.py'}:NeverSeen"


@pytest.fixture(autouse=True)
def nothing_left(quick_weights: Path, track: Track) -> object:
    yield
    assert processes_of_runs(quick_weights) == []


@pytest.fixture(scope="module")
def remembered() -> dict[str, RunDetail]:
    """Runs that several tests look at."""
    return {}


@pytest.fixture
def reference(track: Track, remembered: dict[str, RunDetail]) -> RunDetail:
    if "reference" not in remembered:
        remembered["reference"] = track.race("adamw")
    return remembered["reference"]


def test_the_reference_reaches_the_target_on_its_grid(reference: RunDetail) -> None:
    record, evaluations = reference.record, reference.evaluations
    assert record.outcome == "reached", record.reason
    assert [e.steps for e in evaluations] == [10 * (i + 1) for i in range(len(evaluations))]
    assert [e.meets for e in evaluations[-3:]] == [False, True, True]
    assert (record.examples, record.model_passes) == (32 * record.steps, 96 * record.steps)
    assert record.best_metric is not None and record.best_metric >= 0.9
    assert not any(e.off_grid for e in evaluations)
    assert record.peak_memory_bytes is not None and record.tuning_effort == "reference"


def test_one_seed_gives_one_curve_and_two_seeds_two(track: Track, reference: RunDetail) -> None:
    again, other = track.race("adamw"), track.race("adamw", seed=1)
    curve = [e.metrics for e in reference.evaluations]
    assert [e.metrics for e in again.evaluations] == curve
    assert [e.metrics for e in other.evaluations][: len(curve)] != curve[: len(other.evaluations)]


def test_the_pace_is_measured_once(track: Track, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.run.FIRST_PACE_S", 0.1)
    fresh = dataclasses.replace(track, home=track.home / "fresh")
    witness = Witness()
    script = ["steps", 10], ["show", "good"], ["steps", 10], ["show", "good"]
    paces = [fresh.perform(*script, pace_ns=None, witness=witness).spec.pace_ns for _ in range(2)]
    assert paces[0] == paces[1]
    assert [text for text in witness.said if "pace" in text] == [
        "Measuring this machine's pace on quick/blobs (once) …"
    ]


def test_what_a_submission_raises_is_kept(track: Track) -> None:
    detail = track.race("RaisesInStep")
    record = detail.record
    assert (record.outcome, record.reason) == ("crashed", "KeyError: 'no such moment'")
    assert detail.traceback is not None and "faulty.py" in detail.traceback
    assert record.steps == 4 and record.submission_time_s > 0


@pytest.mark.slow
def test_an_exception_of_the_pipes_own_kind_is_kept_too(track: Track) -> None:
    detail = track.race("RaisesEndOfFile")
    assert detail.record.outcome == "crashed" and "a file was cut short" in detail.record.reason
    assert detail.traceback is not None


def test_an_exception_at_import_is_a_crash(track: Track) -> None:
    detail = track.race(IMPORT_FAILURE)
    assert (detail.record.outcome, detail.record.reason) == ("crashed", "RuntimeError: not today")
    assert detail.traceback is not None and "raises_at_import.py" in detail.traceback
    assert detail.record.submission_time_s == 0


def test_a_segmentation_fault_is_a_crash_and_leaves_its_trace(track: Track) -> None:
    detail = track.race("Segfaults")
    assert (detail.record.outcome, detail.record.reason) == (
        "crashed",
        "the trainee was killed by SIGSEGV",
    )
    assert "Fatal Python error: Segmentation fault" in track.directory(detail).output()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("submission", "word"), [("Exits", "exited with code 3"), ("SaysGoodbye", "code 1")]
)
def test_an_exit_is_a_crash(track: Track, submission: str, word: str) -> None:
    record = track.race(submission).record
    assert record.outcome == "crashed" and word in record.reason


def test_a_hung_step_is_a_timeout(track: Track) -> None:
    patience = dataclasses.replace(QUICKLY, silence_floor_s=0.8)
    record = track.race("Hangs", pace_ns=1_000_000, budget_paces=100_000, patience=patience).record
    assert record.outcome == "timeout" and "after step 4" in record.reason


@pytest.mark.slow
def test_weights_that_explode_diverge(track: Track) -> None:
    detail = track.race("Explodes")
    assert detail.record.outcome == "diverged" and "weights" in detail.record.reason
    assert detail.evaluations[-1].value is None and detail.record.evaluations == 1


def test_one_loss_that_is_not_finite_diverges_whatever_the_weights(track: Track) -> None:
    detail = track.race("StumblesOnce")
    assert detail.record.outcome == "diverged" and "training loss" in detail.record.reason
    assert detail.evaluations[-1].value is not None


@pytest.mark.slow
def test_a_target_met_at_every_other_evaluation_is_unconfirmed(track: Track) -> None:
    detail = track.race("Wavers", pace_ns=20_000_000, budget_paces=60)
    assert detail.record.outcome == "budget" and detail.record.reason.startswith("unconfirmed")
    on_grid = [e.meets for e in detail.evaluations if not e.off_grid]
    assert on_grid[-4:-2] in ([True, False], [False, True])
    assert detail.record.time_to_target_s is None and detail.record.first_crossing_s is not None


def test_memory_without_end_stops_at_the_limit(track: Track) -> None:
    detail = track.race("Hoards", memory_limit_bytes=1_500_000_000)
    assert detail.record.outcome == "out_of_memory", detail.record.reason
    # The copy for an evaluation does not count: one at least was made on the way.
    assert detail.traceback is not None and "Hoards" not in detail.record.reason
    assert detail.record.evaluations >= 1


@pytest.mark.parametrize(
    ("submission", "word"),
    [
        ("WritesDoubles", "dtype torch.float64"),
        pytest.param("WritesAnotherShape", "shape (1, 8)", marks=pytest.mark.slow),
        pytest.param("IsNoOptimizer", "is no torch.optim", marks=pytest.mark.slow),
        pytest.param("BreaksTheProtocol", "no valid message", marks=pytest.mark.slow),
    ],
)
def test_breaches_disqualify(track: Track, submission: str, word: str) -> None:
    record = track.race(submission).record
    assert record.outcome == "disqualified" and word in record.reason


def test_the_constructor_is_on_the_clock_and_slow_steps_are_evaluated_off_the_grid(
    track: Track,
) -> None:
    detail = track.race("SlowToBuild", pace_ns=10_000_000, budget_paces=150)
    assert detail.record.outcome == "budget"
    assert detail.evaluations[0].elapsed_ns > 0.6e9
    off_grid = [e for e in detail.evaluations if e.off_grid]
    assert off_grid and all(e.steps % 10 for e in off_grid)


def test_compilation_is_measured(track: Track) -> None:
    detail = track.race("Compiles")
    record = detail.record
    assert record.outcome == "reached", record.reason
    assert all(e.compile_ns > 0 for e in detail.evaluations)
    assert record.time_without_compile_s < record.time_to_target_s  # type: ignore[operator]


def test_a_wandering_tree_is_pinned_stopped_and_ended(
    track: Track, quick_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forked child and a program in a session of its own are the run's, too."""
    notes = tmp_path / "notes"
    monkeypatch.setenv("QUICK_NOTES_FILE", str(notes))
    seen: list[dict[int, tuple[str, list[int]]]] = []

    def look(_: object) -> None:
        processes = processes_of_runs(quick_weights)
        seen.append({p.pid: (p.status(), p.cpu_affinity()) for p in processes})

    detail = track.race("ForksAndTrains", witness=Witness(on_evaluated=look))
    assert detail.record.outcome == "reached"
    everybody = set(map(int, notes.read_text().split()))
    assert len(everybody) == 3
    expected = (psutil.STATUS_STOPPED, detail.spec.trainee_cores)
    assert all(found == dict.fromkeys(everybody, expected) for found in seen)
    assert f"cores {detail.spec.trainee_cores} threads {detail.spec.threads}" in (
        track.directory(detail).output()
    )


@pytest.mark.slow
def test_a_killed_trainee_is_a_crash_and_takes_its_children_along(
    track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "notes"
    monkeypatch.setenv("QUICK_NOTES_FILE", str(notes))
    record = track.race("ForksAndDies").record
    assert (record.outcome, record.reason) == ("crashed", "the trainee was killed by SIGKILL")
    assert not any(is_alive(int(pid)) for pid in notes.read_text().split())


@pytest.mark.slow
def test_an_interrupt_ends_a_run_in_good_order(track: Track) -> None:
    begun: list[RunSpec] = []
    asked: Callable[[], bool] = lambda: bool(begun)  # noqa: E731
    detail = track.race("Hangs", witness=Witness(on_started=begun.append), interrupted=asked)
    assert detail.record.outcome == "interrupted" and detail.record.drift is None
    assert not track.directory(detail).is_live()


def test_two_submissions_with_one_seed_start_alike_and_see_the_same_batches(
    track: Track,
) -> None:
    def seen(submission: str) -> list[str]:
        detail = track.race(submission, seed=3, pace_ns=10_000_000, budget_paces=30)
        assert detail.record.outcome == "budget", detail.record.reason
        output = track.directory(detail).output()
        assert "hello from the constructor" in output
        return re.findall("seen (.*)", output)

    one, too = seen("StandsStill"), seen("StandsStillToo")
    assert len(one) == 21 and len(set(one)) == 21
    assert one == too
