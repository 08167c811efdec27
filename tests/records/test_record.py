from pathlib import Path

import msgspec
import pytest
from records.synthetic_runs import PACE_NS, SyntheticRun

from harness.records.record import read_run, summarise


def test_a_run_that_reached(tmp_path: Path) -> None:
    run = SyntheticRun(run_id="a", compile_s=0.25, energy_j=12.5)
    detail = read_run(run.write(tmp_path))
    record = detail.record
    assert record.outcome == "reached"
    assert record.time_to_target_s == pytest.approx(3.0)
    assert record.time_without_compile_s == pytest.approx(2.75)
    assert record.first_crossing_s == pytest.approx(3.0)
    assert record.submission_time_s == pytest.approx(4.0)
    assert record.normalised_time == pytest.approx(3e9 / PACE_NS)
    assert record.drift == pytest.approx(0.02)
    assert (record.steps, record.examples, record.model_passes) == (400, 4000, 12000)
    assert (detail.steps_to_target, detail.model_passes_to_target) == (300, 9000)
    assert detail.examples_to_target == 3000
    assert record.throughput_examples_per_s == pytest.approx(1000)
    assert record.evaluations == 4
    assert record.best_metric == 0.93
    assert (record.peak_memory_bytes, record.energy_j) == (300 << 20, 12.5)
    assert detail.import_s == pytest.approx(0.01)
    assert [note.key for note in detail.notes] == ["warm-up"]


def test_missing_is_none_and_never_zero() -> None:
    run = SyntheticRun(
        run_id="a", values=(), outcome="crashed", reason="it broke", peak_memory_bytes=None
    )
    record = summarise(run.spec(), run.events()).record
    for name in (
        "time_to_target_s",
        "time_without_compile_s",
        "first_crossing_s",
        "interpolated_crossing_s",
        "normalised_time",
        "best_metric",
        "test_metric",
        "throughput_examples_per_s",
        "peak_memory_bytes",
        "gpu_peak_memory_bytes",
        "energy_j",
        "energy_source",
    ):
        assert getattr(record, name) is None, name


def test_a_missed_target_keeps_its_first_crossing() -> None:
    run = SyntheticRun(run_id="a", values=(0.5, 0.95, 0.8), outcome="budget", reason="unconfirmed")
    record = summarise(run.spec(), run.events()).record
    assert record.time_to_target_s is None
    assert record.first_crossing_s == pytest.approx(2.0)


def test_not_a_number_is_no_best_metric() -> None:
    run = SyntheticRun(run_id="a", values=(None, 0.4, None), outcome="diverged", reason="nan")
    assert summarise(run.spec(), run.events()).record.best_metric == 0.4


def test_without_an_end_a_run_was_interrupted() -> None:
    run = SyntheticRun(run_id="a")
    detail = summarise(run.spec(), run.events()[:-1])
    assert detail.record.outcome == "interrupted"
    assert detail.record.reason
    assert detail.record.time_to_target_s is None  # met, but nobody confirmed it
    assert detail.record.first_crossing_s == pytest.approx(3.0)
    assert detail.record.submission_time_s == pytest.approx(4.0)
    assert detail.record.steps == 400


def test_an_empty_log_is_an_interrupted_run() -> None:
    run = SyntheticRun(run_id="a")
    detail = summarise(run.spec(), [])
    assert detail.record.outcome == "interrupted"
    assert detail.started_unix_ns is None


def test_a_log_cut_off_anywhere_is_readable(tmp_path: Path) -> None:
    directory = SyntheticRun(run_id="a").write(tmp_path)
    log = directory.folder / "events.jsonl"
    content = log.read_bytes()
    for length in range(0, len(content), 97):
        log.write_bytes(content[:length])
        assert read_run(directory).record.outcome == "interrupted"


def test_a_damaged_specification_is_said(tmp_path: Path) -> None:
    directory = SyntheticRun(run_id="a").write(tmp_path)
    (directory.folder / "spec.json").write_text("{}")
    with pytest.raises(msgspec.MsgspecError):
        read_run(directory)
