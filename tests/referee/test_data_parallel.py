"""Runs in two processes, on quick/blobs: they train as one does, and end as one."""

import dataclasses
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from referee.quick_runs import PLUGINS, QUICKLY, Track, is_alive, processes_of_runs, wait_until
from referee.test_sudden_ends import assert_interrupted, kill, only_run, start

from harness.cores import RankCores
from harness.errors import UsageError
from harness.events import Evaluation
from harness.records.record import RunDetail
from harness.referee.referee import Patience
from harness.run import Plan, Request, _device_taints, plan

ILL_RANKS = PLUGINS / "timetrial_quick" / "ill_ranks.py"


@pytest.fixture(autouse=True)
def nothing_left(quick_weights: Path, track: Track) -> Iterator[None]:
    yield
    wait_until(lambda: processes_of_runs(quick_weights) == [])


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "notes"
    monkeypatch.setenv("QUICK_NOTES_FILE", str(path))
    return path


def request(home: Path, submission: str, nproc: int = 2) -> Plan:
    return plan(
        Request(submission=submission, workload="quick/blobs", device="cpu", home=home, nproc=nproc)
    )


def first_evaluations(track: Track, submission: str, nproc: int, count: int) -> RunDetail:
    seen: list[Evaluation] = []

    def stopped(evaluation: Evaluation) -> str | None:
        seen.append(evaluation)
        return "enough" if len(seen) == count else None

    return track.race(submission, nproc=nproc, stopped=stopped)


def told(notes: Path) -> dict[str, dict[int, float]]:
    """Return what `tells-losses` heard: a loss by step, by rank."""
    losses: dict[str, dict[int, float]] = {}
    for line in notes.read_text().splitlines():
        rank, step, loss = line.split()
        losses.setdefault(rank, {})[int(step)] = float(loss)
    notes.unlink()
    return losses


def test_two_processes_train_as_one_does(track: Track, notes: Path) -> None:
    one = first_evaluations(track, "tells-losses+adamw", 1, 2)
    alone = told(notes)["0"]
    two = first_evaluations(track, "tells-losses+adamw", 2, 2)
    together = told(notes)
    assert together["0"] == together["1"]  # both hear of all losses
    assert len(alone) >= 20
    assert [together["0"][step] for step in range(20)] == pytest.approx(
        [alone[step] for step in range(20)], rel=1e-5
    )
    assert two.spec.nproc == two.record.nproc == 2
    for ours, theirs in zip(two.evaluations, one.evaluations, strict=True):
        counts = ours.steps, ours.examples, ours.model_passes
        assert counts == (theirs.steps, theirs.examples, theirs.model_passes)
        assert ours.metrics == pytest.approx(theirs.metrics, rel=1e-5)
    assert two.record.examples == 512 + 5 * 31  # an epoch ends with a batch of 16
    assert two.record.model_passes == 3 * two.record.examples


@pytest.mark.slow
@pytest.mark.parametrize(
    "submission",
    [
        "sam",  # two passes a step
        "mezo",  # no gradients
        "muon+ema",
        "schedule-free",
        "halves+sgd",
        "late-growth+backwards+last-few+plain-sgd",  # weights from losses, a holdout
        "infobatch+label-smoothing",
        "linupper",
        "rs2+uba",
        "selective-backprop",  # scores examples
    ],
)
def test_other_recipes_do_too(track: Track, submission: str, notes: Path) -> None:
    one, two = (first_evaluations(track, submission, nproc, 3) for nproc in (1, 2))
    assert two.record.outcome == one.record.outcome, two.record.reason
    assert two.record.outcome in ("stopped", "reached")
    for ours, theirs in zip(two.evaluations, one.evaluations, strict=True):
        assert (ours.steps, ours.examples) == (theirs.steps, theirs.examples)
        assert ours.metrics == pytest.approx(theirs.metrics, rel=1e-4)
        assert ours.model_passes == theirs.model_passes


@pytest.mark.slow
def test_what_every_process_does_counts_for_each(track: Track) -> None:
    """The pilot of EL2N, say, which both train and score alike."""
    one, two = (track.race("el2n", nproc=nproc).record for nproc in (1, 2))
    assert (one.outcome, two.outcome) == ("reached", "reached")
    pilot = [record.model_passes - 3 * record.examples for record in (one, two)]
    assert pilot[1] == 2 * pilot[0] > 0


@pytest.mark.slow
def test_two_processes_reach_the_target_when_one_does(track: Track) -> None:
    """The same steps, or a grid step more or less where rounding decides."""
    for seed in range(5):
        one, two = (track.race("adamw", seed=seed, nproc=nproc) for nproc in (1, 2))
        assert (one.record.outcome, two.record.outcome) == ("reached", "reached")
        assert one.steps_to_target is not None and two.steps_to_target is not None
        assert abs(two.steps_to_target - one.steps_to_target) <= 10


# -- ends ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("DiesInRankOne", "rank 1 was killed by SIGKILL"),
        pytest.param(
            "RaisesInRankOne", "rank 1: KeyError: 'no such moment'", marks=pytest.mark.slow
        ),
        pytest.param(
            "LeavesInRankOne", "rank 1 exited with code 3 without a word", marks=pytest.mark.slow
        ),
    ],
)
def test_the_rank_that_crashed_is_named(track: Track, notes: Path, name: str, reason: str) -> None:
    detail = track.race(f"{ILL_RANKS}:{name}", nproc=2)
    assert (detail.record.outcome, detail.record.reason) == ("crashed", reason)
    assert len(detail.evaluations) == 1 and detail.record.steps <= 15
    assert (detail.traceback is not None and "fall_ill" in detail.traceback) == ("Raises" in name)
    assert not any(is_alive(int(pid)) for pid in notes.read_text().split())


@pytest.mark.slow
def test_the_rank_that_hangs_is_named(track: Track, notes: Path) -> None:
    patience = Patience(
        **{name: getattr(QUICKLY, name) for name in Patience.__slots__} | {"silence_floor_s": 2.0}
    )
    detail = track.race(
        f"{ILL_RANKS}:HangsInRankOne", nproc=2, pace_ns=1_000_000, budget_paces=1e7,
        patience=patience,
    )  # fmt: skip
    assert detail.record.outcome == "timeout"
    assert re.search(r"after step 1\d: rank 1 is behind the others$", detail.record.reason)


@pytest.mark.slow
def test_a_rank_that_takes_too_much_memory_is_named(track: Track) -> None:
    record = track.race("Hoards", nproc=2, memory_limit_bytes=4 << 30).record
    assert record.outcome == "out_of_memory", record.reason
    assert re.match(r"rank [01]: ", record.reason)


@pytest.mark.slow
def test_weights_that_part_are_found_at_the_next_evaluation(track: Track, notes: Path) -> None:
    record = track.race(f"{ILL_RANKS}:GoesItsOwnWay", nproc=2).record
    assert record.outcome == "disqualified" and record.evaluations == 1
    assert record.reason.startswith("the ranks train different weights (0.weight and ")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_all_ranks_end_with_their_referee(
    track: Track, tmp_path: Path, notes: Path, number: signal.Signals, quick_weights: Path
) -> None:
    submission = f"{ILL_RANKS}:HangsInRankOne"
    Track(home=tmp_path, monkeypatch=track.monkeypatch).store_pace(
        request(tmp_path, submission), 100_000_000
    )
    bench = start(
        ["harness.cli", "run", "-s", submission, "-w", "quick/blobs", "--device", "cpu",
         "--nproc", "2", "--results", str(tmp_path)]
    )  # fmt: skip
    wait_until(lambda: notes.exists() and len(notes.read_text().split()) == 2)
    pids = [int(pid) for pid in notes.read_text().split()]
    assert len(processes_of_runs(quick_weights)) == 2
    assert {psutil.Process(pid).pid for pid in pids} == set(pids)
    directory = only_run(tmp_path)
    if number == signal.SIGKILL:
        kill(bench)
    else:
        bench.send_signal(number)
        bench.communicate(timeout=60)
        assert bench.returncode == 130
    wait_until(lambda: not any(is_alive(pid) for pid in pids))
    assert_interrupted(directory)


# -- what is asked -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("submission", "why"),
    [
        ("gbnn", "it owns the loop"),
        ("adahessian", "it differentiates gradients again"),
        ("sophia", "its optimizer needs the session and the model"),
        ("adadagrad", "its schedule looks at the model"),
    ],
)
def test_what_would_train_otherwise_is_refused(tmp_path: Path, submission: str, why: str) -> None:
    with pytest.raises(UsageError, match=rf"{why}.* Leave --nproc out\."):
        request(tmp_path, submission)
    request(tmp_path, submission, nproc=1)


def test_a_batch_smaller_than_the_processes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"recipe.batch_size is 32\. Use --nproc 32 or fewer"):
        request(tmp_path, "adamw", nproc=33)


def test_ranks_that_share_cores_taint(tmp_path: Path) -> None:
    chosen = request(tmp_path, "adamw", nproc=3)
    alone = SimpleNamespace(taints=[])
    for used, taints in ((3, []), (2, ["3 processes shared 2 training cores"])):
        cores = RankCores(cores=[[1]] * 3, threads=1, used=used)
        found = _device_taints(dataclasses.replace(chosen, rank_cores=cores), alone)  # type: ignore[arg-type]
        assert [taint for taint in found if "processes" in taint] == taints


def test_the_number_of_processes_is_in_identity_and_machine_class(tmp_path: Path) -> None:
    one, two, three = (request(tmp_path, "adamw", nproc) for nproc in (1, 2, 3))
    assert len({chosen.identity(0) for chosen in (one, two, three)}) == 3
    assert "processes" not in one.machine_class and one.rank_cores is None
    assert "in 2 processes" in two.machine_class and "in 3 processes" in three.machine_class
