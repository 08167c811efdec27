"""What counts as done, failed or queued, and how long the rest should take."""

from pathlib import Path

import pytest
from records.synthetic_runs import MACHINE, SECOND, SyntheticRun

from harness import catalogue
from harness.run import Request
from harness.sweeps.jobs import Job
from harness.sweeps.status import START_S, Retry, standing


def job(identity: str, submission: str = "lion", workload: str = "mlp/digits") -> Job:
    return Job(
        request=Request(submission=submission, workload=workload, home=Path("nowhere")),
        seed=0,
        identity=identity,
        submission=submission,
        workload=workload,
        machine_class=MACHINE,
    )


JOBS = [job(name) for name in "abcdefg"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Runs of a (reached), b (crashed), c (killed), d (tainted), e (crashed, then reached)."""
    SyntheticRun(run_id="1", identity="a").write(tmp_path)
    SyntheticRun(run_id="2", identity="b", outcome="crashed", reason="it fell").write(tmp_path)
    SyntheticRun(run_id="3", identity="c").abandon(tmp_path)
    SyntheticRun(run_id="4", identity="d", taints=["drift"]).write(tmp_path)
    SyntheticRun(run_id="5", identity="e", outcome="crashed").write(tmp_path)
    SyntheticRun(run_id="6", identity="e", created_unix_ns=2_000_000_000 * SECOND).write(tmp_path)
    SyntheticRun(run_id="7", identity="of no sweep").write(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("retry", "expected"),
    [
        (Retry(), "a done, b failed, c queued, d done, e done, f queued, g queued"),
        (Retry(failed=True), "a done, b queued, c queued, d done, e done, f queued, g queued"),
        (Retry(tainted=True), "a done, b failed, c queued, d queued, e done, f queued, g queued"),
    ],
)
def test_finished_runs_are_not_repeated(home: Path, retry: Retry, expected: str) -> None:
    found = standing(home, JOBS, retry)
    states = ", ".join(f"{job.identity} {found.state(job)}" for job in JOBS)
    assert states == expected
    assert [job.identity for job in found.queued] == [
        job.identity for job in JOBS if found.state(job) == "queued"
    ]
    assert found.past["b"].reason == "it fell"
    assert found.past["e"].run_id == "6"


def test_a_clean_run_counts_before_a_tainted_one(tmp_path: Path) -> None:
    SyntheticRun(run_id="1", identity="a").write(tmp_path)
    SyntheticRun(run_id="2", identity="a", taints=["drift"]).write(tmp_path)
    found = standing(tmp_path, JOBS, Retry(tainted=True))
    assert found.past["a"].run_id == "1" and found.state(JOBS[0]) == "done"


def test_an_empty_home_has_everything_to_do(tmp_path: Path) -> None:
    found = standing(tmp_path, JOBS, Retry())
    assert found.queued == JOBS and found.past == {}


def test_the_estimate_is_the_submissions_own_then_the_references_then_the_cards(
    tmp_path: Path,
) -> None:
    card = catalogue.workload("mlp").card
    mine = {"workload": card, "values": (0.5, 0.96, 0.97), "credited": 1}
    jobs = [job("a", "lion"), job("b", "sgd"), job("c", "lion", "gpt/addition")]
    bare = standing(tmp_path, jobs, Retry()).seconds
    share = card.noise.evaluation_share
    assert share is not None
    assert bare["a"] == bare["b"] == pytest.approx(card.reference_seconds / (1 - share) + START_S)
    # An evaluation a second, and 11 ms off the clock each.
    SyntheticRun(run_id="1", tuning_effort="reference", **mine).write(tmp_path)  # type: ignore[arg-type]
    SyntheticRun(run_id="2", submission="lion", interval_s=3.0, **mine).write(tmp_path)  # type: ignore[arg-type]
    found = standing(tmp_path, jobs, Retry())
    assert found.seconds["a"] == pytest.approx(9.033 + START_S)
    assert found.seconds["b"] == pytest.approx(3.033 + START_S)
    assert found.seconds["c"] == bare["c"]
    assert found.seconds_left == pytest.approx(sum(found.seconds.values()))
