"""What the referee makes of a trainee that breaks the protocol, by a scripted trainee."""

import dataclasses
import pickle
import time
from pathlib import Path

import msgspec
import psutil
import pytest
from referee.quick_runs import QUICKLY, Track, Witness, processes_of_runs

from harness.messages import MAX_MESSAGE_BYTES
from harness.spec import RunSpec

STEP_1_MS = 1_000_000
IMPATIENT = dataclasses.replace(
    QUICKLY, prepare_s=0.4, silence_floor_s=0.4, export_s=0.4, farewell_s=0.4
)


@pytest.fixture(autouse=True)
def nothing_left(quick_weights: Path, track: Track) -> object:
    yield
    assert processes_of_runs(quick_weights) == []


@pytest.mark.parametrize(
    ("weights", "outcome", "word"),
    [
        ("not_finite", "diverged", "not finite"),
        ("double", "disqualified", "dtype torch.float64"),
        ("another_shape", "disqualified", "shape (1, 8)"),
        ("one_missing", "disqualified", "0.weight"),
        ("one_more", "disqualified", "surprise"),
        ("garbage", "disqualified", "cannot be read"),
    ],
)
def test_weights_are_checked(track: Track, weights: str, outcome: str, word: str) -> None:
    detail = track.perform(["steps", 10], ["show", weights])
    assert detail.record.outcome == outcome and word in detail.record.reason
    # What was not finite is missing, not a number and not the target.
    assert [e.value for e in detail.evaluations] == ([None] if outcome == "diverged" else [])


@pytest.mark.parametrize("size", [0, -1, 10**9, 2**62, 2**63])
def test_a_size_that_was_not_written_disqualifies(track: Track, size: int) -> None:
    record = track.perform(["steps", 10], ["announce"], ["export_size", size], ["go_on"]).record
    assert record.outcome == "disqualified" and "were announced" in record.reason


@pytest.mark.parametrize(
    "script",
    [
        [["steps", 10], ["show", "bad", 10**15]],
        [["steps", 10], ["show", "bad", -1]],
        [["sleep", 0.1], ["steps", 10], ["show", "bad", 10**7], ["steps", 10], ["show", "bad", 1]],
        [["finish", 10**15]],
    ],
)
def test_impossible_compilation_times_disqualify(track: Track, script: list[list[object]]) -> None:
    record = track.perform(*script).record
    assert record.outcome == "disqualified" and "of compilation were reported" in record.reason


@pytest.mark.parametrize(
    ("script", "word"),
    [
        ([["ready_again"]], "Ready was sent where Evaluate was due"),
        ([["export", "good"]], "Exported was sent where Evaluate was due"),
        ([["steps", 10], ["announce"], ["announce"]], "Evaluate was sent where Exported was due"),
        ([["steps", 10], ["announce"], ["finish"]], "Finished was sent where Exported was due"),
        ([["send_python", "hello"]], "no valid message"),
        ([["write", "ffffffff"]], "4,294,967,295 bytes"),
        ([["write", "00ffffff" + "61" * 100]], "16,777,215 bytes"),
        ([["close_and_sleep"]], "closed the pipe and went on"),
    ],
)
def test_breaches_disqualify(track: Track, script: list[list[object]], word: str) -> None:
    record = track.perform(*script, patience=IMPATIENT).record
    assert record.outcome == "disqualified" and word in record.reason


def test_a_message_that_is_cut_off_holds_nobody_up(track: Track) -> None:
    record = track.perform(
        ["write", "00000100616263"], ["sleep", 1000], pace_ns=STEP_1_MS, patience=IMPATIENT
    ).record
    assert record.outcome == "timeout"
    record = track.perform(["write", "0000010061"], ["close"], ["exit", 4]).record
    assert record.outcome == "crashed" and "exited with code 4" in record.reason


def test_no_pickle_is_ever_loaded(track: Track, tmp_path: Path) -> None:
    trace = tmp_path / "loaded"

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (trace,))

    bomb = pickle.dumps(Bomb())
    framed = len(bomb).to_bytes(4, "big") + bomb
    record = track.perform(["write", framed.hex()]).record
    assert record.outcome == "disqualified" and "no valid message" in record.reason
    assert not trace.exists()
    pickle.loads(bomb)
    assert trace.exists()


def test_a_long_message_within_the_limit_arrives(track: Track) -> None:
    detail = track.perform(["long_note", MAX_MESSAGE_BYTES - 100], ["finish"])
    assert len(detail.notes[0].value) == MAX_MESSAGE_BYTES - 100
    record = track.perform(["long_note", MAX_MESSAGE_BYTES], ["finish"]).record
    assert record.outcome == "disqualified" and "the limit is 4,194,304" in record.reason


@pytest.mark.parametrize(
    ("script", "starts", "word"),
    [
        ([["sleep", 1000]], False, "while it prepared"),
        ([["steps", 3], ["sleep", 1000]], True, "after step 3"),
        ([["steps", 10], ["announce"], ["sleep", 1000]], True, "while it exported"),
    ],
)
def test_silence_is_a_timeout(
    track: Track, script: list[list[object]], starts: bool, word: str
) -> None:
    record = track.perform(*script, starts=starts, pace_ns=STEP_1_MS, patience=IMPATIENT).record
    assert record.outcome == "timeout" and word in record.reason


def test_an_exit_without_a_word_is_a_crash(track: Track) -> None:
    assert track.perform(["exit", 3]).record.outcome == "crashed"
    record = track.perform(["steps", 10], ["announce"], ["exit", 0]).record
    assert (record.outcome, record.reason) == (
        "crashed",
        "the trainee exited with code 0 without a word",
    )
    assert track.perform(["exit", 3], starts=False).record.outcome == "crashed"


def test_a_killed_trainee_is_a_crash_and_takes_its_children_along(track: Track) -> None:
    record = track.perform(["fork"], ["start_program"], ["steps", 3], ["kill_itself"]).record
    assert (record.outcome, record.reason) == ("crashed", "the trainee was killed by SIGKILL")
    assert record.steps == 3


def test_a_child_that_holds_the_pipe_open_hides_no_end(
    track: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUICK_UNTIED", "1")
    record = track.perform(["leave_the_pipe_to_a_child"]).record
    assert record.outcome == "crashed" and "exited with code 7" in record.reason


def test_notes_are_kept_and_a_flood_of_them_stops_neither_budget_nor_interrupt(
    track: Track,
) -> None:
    detail = track.perform(["note", "a", "b"], ["finish"])
    assert [(note.key, note.value) for note in detail.notes] == [("a", "b")]
    assert track.perform(["chatter"], pace_ns=STEP_1_MS, budget_paces=200).record.outcome == (
        "budget"
    )
    begun: list[RunSpec] = []
    record = track.perform(
        ["chatter"], witness=Witness(on_started=begun.append), interrupted=lambda: bool(begun)
    ).record
    assert (record.outcome, record.reason) == ("interrupted", "interrupted by the user")


def test_an_interrupt_is_heard_between_evaluations_that_come_thick_and_fast(track: Track) -> None:
    seen: list[object] = []
    scene = [["steps", 10], ["show", "bad"]]
    record = track.perform(
        *scene * 2000, witness=Witness(on_evaluated=seen.append), interrupted=lambda: len(seen) >= 3
    ).record
    assert record.outcome == "interrupted" and record.evaluations == 3


def test_the_referee_sleeps_while_the_trainee_hangs(track: Track) -> None:
    used: list[float] = []

    class Stopwatched(Witness):
        def finishing(self, outcome: str, reason: str) -> None:
            used.append(time.process_time())

    witness = Stopwatched(on_started=lambda spec: used.append(time.process_time()))
    patience = dataclasses.replace(QUICKLY, poll_s=0.1, silence_floor_s=1.0)
    record = track.perform(
        ["sleep", 1000], pace_ns=STEP_1_MS, patience=patience, witness=witness
    ).record
    assert record.outcome == "timeout" and record.submission_time_s > 1.0
    assert used[1] - used[0] < 0.3


def test_the_trainee_and_its_children_stand_still_during_an_evaluation(
    track: Track, quick_weights: Path
) -> None:
    states: list[list[str]] = []

    def look(_: object) -> None:
        states.append([process.status() for process in processes_of_runs(quick_weights)])

    record = track.perform(
        ["fork"], ["steps", 10], ["show", "good"], ["steps", 10], ["show", "good"],
        witness=Witness(on_evaluated=look),
    ).record  # fmt: skip
    assert record.outcome == "reached"
    assert states == [[psutil.STATUS_STOPPED] * 2] * 2


def test_the_record_outlives_a_full_disk_and_nothing_is_left_running(
    track: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import threading

    from harness.records.run_directory import RunWriter

    genuine = RunWriter.event

    def full(writer: RunWriter, event: msgspec.Struct) -> None:
        if type(event).__name__ == "Evaluation":
            raise OSError(28, "No space left on device")
        genuine(writer, event)  # type: ignore[arg-type]

    monkeypatch.setattr(RunWriter, "event", full)
    cores = os.sched_getaffinity(0)
    with pytest.raises(OSError, match="No space left"):
        track.perform(["steps", 10], ["show", "good"])
    assert "telemetry" not in [thread.name for thread in threading.enumerate()]
    assert os.sched_getaffinity(0) == cores
