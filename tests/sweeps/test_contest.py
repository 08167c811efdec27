"""Pairs: which two runs are one, which count, and which a contest makes next."""

import datetime
from pathlib import Path

import pytest
from records.synthetic_runs import SECOND, SyntheticRun, set_owner
from sweeps.made_runs import BETWEEN_S, Made, RecordedRuns, Script, Silent, times

from harness.run import Request
from harness.sweeps.contest import HOPELESS, Contest, Result, Terms
from harness.sweeps.jobs import Job
from harness.sweeps.pairs import (
    ATTEMPTS,
    MadePair,
    Match,
    Retry,
    made_pairs,
    match,
    seed_standing,
)


def moment(executor: RecordedRuns) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(executor.now_ns / SECOND, datetime.UTC).replace(
        tzinfo=None
    )


def between(home: Path, a: str = "lion", b: str = "sgd", workload: str = "mlp") -> Match:
    return match(
        *(Request(submission=s, workload=workload, device="cpu", home=home) for s in (a, b))
    )


def terms(pairs: int = 5, *, until_decided: bool = False, first: int = 0) -> Terms:
    return Terms(
        seeds=range(first, first + pairs),
        until_decided=until_decided,
        alpha=0.01,
        effect=0.05,
        clock="cold",
    )


def run(
    home: Path,
    script: Script,
    asked: Terms | None = None,
    matches: list[Match] | None = None,
    retry: Retry | None = None,
    executor: RecordedRuns | None = None,
) -> tuple[list[Result], RecordedRuns]:
    executor = executor or RecordedRuns(home, script)
    contest = Contest(home, matches or [between(home)], asked or terms(), retry)
    return contest.run(executor, Silent(), lambda: False), executor


STEADY = times({"lion": [10.0, 10.2, 9.9, 10.1, 10.0], "sgd": [13.0, 13.1, 13.2, 12.9, 13.0]})


def test_the_sides_swap_places_and_the_first_pair_comes_alone(tmp_path: Path) -> None:
    [result], executor = run(tmp_path, STEADY)
    turns = [("lion", "sgd"), ("sgd", "lion"), ("lion", "sgd"), ("sgd", "lion"), ("lion", "sgd")]
    pairs = [[(name, seed) for name in turn] for seed, turn in enumerate(turns)]
    assert executor.calls == [pairs[0], [run for pair in pairs[1:] for run in pair]]
    comparison = result.comparison
    assert (comparison.pairs, comparison.verdict, comparison.test) == (5, "faster", "student")
    assert comparison.ratio == pytest.approx(1.30, abs=0.01)


def test_what_was_made_is_not_made_again(tmp_path: Path) -> None:
    run(tmp_path, STEADY, terms(3))
    [same], again = run(tmp_path, STEADY, terms(3))
    assert again.calls == [] and same.comparison.pairs == 3
    [more], after = run(tmp_path, STEADY, terms(5))
    assert [seed for call in after.calls for _, seed in call] == [3, 3, 4, 4]
    assert more.comparison.pairs == 5
    [other], shifted = run(tmp_path, STEADY, terms(2, first=4))
    assert shifted.calls == [[("sgd", 5), ("lion", 5)]] and other.comparison.pairs == 2


def test_an_interrupted_pair_is_made_whole_again(tmp_path: Path) -> None:
    executor = RecordedRuns(tmp_path, STEADY)
    contest = Contest(tmp_path, [between(tmp_path)], terms(2))
    contest.run(
        executor, Silent(), lambda: sum(map(len, executor.calls)) >= 4 and _runs(tmp_path) >= 3
    )
    assert _runs(tmp_path) == 3
    executor.now_ns += 3600 * SECOND
    [result], executor = run(tmp_path, STEADY, terms(2), executor=executor)
    assert executor.calls[-1] == [("sgd", 1), ("lion", 1)]
    assert result.comparison.pairs == 2 and _runs(tmp_path) == 5


def _runs(home: Path) -> int:
    folder = home / "runs"
    return len(list(folder.iterdir())) if folder.exists() else 0


def test_a_tainted_pair_is_made_again_and_the_first_clean_one_counts(tmp_path: Path) -> None:
    def script(job: Job, before: int) -> Made:
        taints = ["drift"] if job.seed == 1 and job.submission == "sgd" and before < 1 else []
        return Made(seconds=10.0 + before, taints=taints)

    [result], executor = run(tmp_path, script, terms(3))
    assert executor.calls[-1] == [("sgd", 1), ("lion", 1)]
    assert result.left_out == [] and result.comparison.pairs == 3
    assert result.seeds[1].pair is not None
    assert result.seeds[1].pair.a.time_to_target_s == 11.0


def test_what_stays_tainted_is_left_out_until_asked_for(tmp_path: Path) -> None:
    def script(job: Job, before: int) -> Made:
        noisy = job.seed == 1 and before < ATTEMPTS + 1
        return Made(seconds=10.0, taints=["drift"] if noisy else [])

    [result], executor = run(tmp_path, script, terms(3))
    assert len(executor.calls) == 1 + ATTEMPTS
    assert result.comparison.pairs == 2
    [left_out] = result.left_out
    assert (left_out.seed, left_out.taints) == (1, ["drift"])
    _, executor = run(tmp_path, script, terms(3), executor=executor)
    assert len(executor.calls) == 1 + ATTEMPTS
    retry = Retry(before=moment(executor), tainted=True)
    [result], executor = run(tmp_path, script, terms(3), retry=retry, executor=executor)
    assert result.comparison.pairs == 3 and len(executor.calls) == 1 + ATTEMPTS + 2


def test_a_failure_at_once_ends_it(tmp_path: Path) -> None:
    broken = lambda job, _: Made(outcome="crashed" if job.submission == "sgd" else "reached")  # noqa: E731
    both = [between(tmp_path), between(tmp_path, workload="finetune")]
    results, executor = run(
        tmp_path,
        lambda job, n: broken(job, n) if job.workload == "mlp/digits" else Made(),
        matches=both,
    )
    assert [result.given_up for result in results] == [True, False]
    assert [result.comparison.pairs for result in results] == [0, 5]
    assert len(executor.calls[1]) == 8  # finetune's alone
    [left_out] = results[0].left_out
    assert [one.outcome for one in left_out.failures] == ["crashed"]
    # It is not tried again unless somebody says so.
    _, again = run(tmp_path, broken, matches=both[:1])
    assert again.calls == []
    now = RecordedRuns(tmp_path, broken)
    retry = Retry(before=moment(now), failed=True)
    [result], _ = run(tmp_path, broken, matches=both[:1], retry=retry, executor=now)
    assert [len(call) for call in now.calls] == [2] and result.given_up


def test_a_later_failure_costs_its_pair(tmp_path: Path) -> None:
    [result], executor = run(
        tmp_path, lambda job, _: Made(outcome="out_of_memory" if job.seed == 2 else "reached")
    )
    assert result.comparison.pairs == 4 and [pair.seed for pair in result.left_out] == [2]
    assert len(executor.calls) == 2


def test_a_refusal_does_not_go_round_for_ever(tmp_path: Path) -> None:
    _, executor = run(tmp_path, lambda job, _: Made(refused="no room"), terms(2))
    assert len(executor.calls) == 2 * ATTEMPTS


def test_until_decided_stops_as_soon_as_it_may(tmp_path: Path) -> None:
    lion = [10.0, 10.2, 9.9, 10.1, 10.05, 9.95]
    script = times({"lion": lion, "sgd": [1.05 * x for x in reversed(lion)]})
    [result], executor = run(tmp_path, script, terms(50, until_decided=True))
    # One to see that it runs, then as many as it takes at the least, then one by one.
    assert [len(call) // 2 for call in executor.calls][:2] == [1, 8]
    assert {len(call) for call in executor.calls[2:]} <= {2}
    comparison = result.comparison
    assert (comparison.test, comparison.verdict) == ("sequential", "faster")
    assert 9 <= comparison.pairs <= 15 and comparison.p <= 0.01
    _, again = run(tmp_path, script, terms(50, until_decided=True))
    assert again.calls == []


def test_until_decided_stops_when_an_effect_is_ruled_out(tmp_path: Path) -> None:
    noise = [0.1, -0.05, 0.02, -0.12, 0.07, -0.03, 0.11, -0.08, 0.0, 0.04, -0.06]
    script = times({"lion": [10 + x for x in noise], "sgd": [10 - x for x in noise]})
    [result], _ = run(tmp_path, script, terms(50, until_decided=True))
    assert result.comparison.verdict == "no difference shown"
    assert result.comparison.rules_out(0.05) and result.decided(0.05)
    assert result.comparison.pairs < 25


def test_until_decided_ends_at_the_most_pairs(tmp_path: Path) -> None:
    script = times({"lion": [10.0, 14.0, 9.0], "sgd": [10.5, 12.0, 9.9, 13.5]})
    [result], _ = run(tmp_path, script, terms(10, until_decided=True))
    assert result.comparison.pairs == 10 and not result.decided(0.05)
    assert result.further_pairs is not None and result.further_pairs > 10


def test_two_sides_that_always_miss_are_given_up(tmp_path: Path) -> None:
    [result], _ = run(tmp_path, lambda job, _: Made(seconds=None), terms(50, until_decided=True))
    assert result.comparison.untelling == HOPELESS and result.given_up
    assert result.comparison.pairs == 0


def test_several_workloads_are_adjusted_for_their_number(tmp_path: Path) -> None:
    both = [between(tmp_path), between(tmp_path, workload="finetune")]
    results, executor = run(tmp_path, STEADY, terms(4), matches=both)
    assert executor.calls[0] == [("lion", 0), ("sgd", 0)] * 2
    ps = sorted(result.comparison.p for result in results)
    adjusted = sorted(result.comparison.adjusted_p for result in results)
    assert adjusted == pytest.approx([2 * ps[0], max(2 * ps[0], ps[1])])


def test_one_submission_against_itself(tmp_path: Path) -> None:
    taken = iter([10.0, 11.0, 12.0, 13.0])  # in the order in which they run
    script = lambda job, _: Made(seconds=next(taken))  # noqa: E731
    [result], _ = run(tmp_path, script, terms(2), matches=[between(tmp_path, "lion", "lion")])
    seconds = [(p.a.time_to_target_s, p.b.time_to_target_s) for p in result.counted]
    assert seconds == [(10.0, 11.0), (13.0, 12.0)]  # B runs first in odd seeds


def written(home: Path, identity: str, at_s: float, run_id: str, **fields: object) -> SyntheticRun:
    one = SyntheticRun(
        run_id=run_id,
        identity=identity,
        created_unix_ns=round((1_700_000_000 + at_s) * SECOND),
        **fields,  # type: ignore[arg-type]
    )
    one.write(home)
    return one


def made(home: Path) -> list[MadePair]:
    return made_pairs(home, [{0: ("a", "b")}])[0][0]


def told(pairs: list[MadePair]) -> list[tuple[str, str]]:
    return [(pair.a.run_id, pair.b.run_id) for pair in pairs]


def test_two_runs_are_a_pair_if_made_right_after_one_another(tmp_path: Path) -> None:
    # Each takes 4 s of clock and 0.044 s beside.
    written(tmp_path, "a", 0, "1")
    written(tmp_path, "a", 10, "2")
    written(tmp_path, "b", 20, "3")
    written(tmp_path, "b", 30, "4")
    written(tmp_path, "b", 1000, "5")
    written(tmp_path, "a", 1000 + 4 + 59, "6")
    written(tmp_path, "a", 2000, "7")
    written(tmp_path, "b", 2000 + 4 + 62, "8")
    found = made(tmp_path)
    assert told(found) == [("2", "3"), ("6", "5")]


def test_long_runs_may_lie_further_apart(tmp_path: Path) -> None:
    written(tmp_path, "a", 0, "1", interval_s=100.0)
    written(tmp_path, "b", 700, "2", interval_s=100.0)
    assert told(made(tmp_path)) == [("1", "2")]


def test_runs_on_two_hosts_are_no_pair(tmp_path: Path) -> None:
    written(tmp_path, "a", 0, "1")
    other = written(tmp_path, "b", 10, "2")
    set_owner(tmp_path / "runs" / other.run_id, host="elsewhere")
    assert made(tmp_path) == []


def test_an_interrupted_run_is_no_partner(tmp_path: Path) -> None:
    written(tmp_path, "a", 0, "1")
    SyntheticRun(run_id="2", identity="b", created_unix_ns=1_700_000_010 * SECOND).abandon(tmp_path)
    assert made(tmp_path) == []
    assert seed_standing([]).state == "due"


def test_what_a_run_needed(tmp_path: Path) -> None:
    written(tmp_path, "a", 0, "1", compile_s=0.5)  # credited at 3 s of 4, 300 of 400 steps
    written(tmp_path, "b", 10, "2", compile_s=1.5, outcome="budget", values=(0.1,) * 4)
    [pair] = made(tmp_path)
    cold, warm = pair.amounts(), pair.amounts("time", "warm")
    assert (cold.a.value, cold.a.reached) == (3.0, True)
    assert (cold.b.value, cold.b.reached) == (10.0, False)  # the budget
    assert (warm.a.value, warm.b.value) == (2.5, 8.5)
    steps, passes = pair.amounts("steps"), pair.amounts("passes")
    assert (steps.a.value, steps.b.value, steps.b.reached) == (300, 400, False)
    assert (passes.a.value, passes.b.value) == (9000, 12_000)
    assert BETWEEN_S < 60
