"""Claims judged by pairs whose interval is worked out here."""

import math
import statistics
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from judging.pairs_of_times import pairs

from harness.errors import UsageError
from harness.judging.claims import FEWEST_PAIRS, judge, judge_memory
from harness.judging.ledger import Entry, Side, ledger_path, read_ledger, write_entry

OWN = [5.0, 5.2, 4.9, 5.1, 5.0, 5.05]
BASELINE = [10.0, 10.1, 9.9, 10.4, 9.8, 10.0]
T_975_5 = 2.5705818366147395  # Student's quantile, five degrees of freedom


def by_hand() -> tuple[float, float, float]:
    logs = [math.log(own / other) for own, other in zip(OWN, BASELINE, strict=True)]
    margin = T_975_5 * statistics.stdev(logs) / math.sqrt(len(logs))
    centre = statistics.fmean(logs)
    return math.exp(centre), math.exp(centre - margin), math.exp(centre + margin)


def test_the_ratio_and_its_interval_against_students_t_by_hand() -> None:
    found = judge(0.6, pairs(OWN, BASELINE))
    assert found.ratio is not None and found.low is not None and found.high is not None
    assert (found.ratio, found.low, found.high) == pytest.approx(by_hand(), rel=1e-9)
    assert (found.pairs, found.untelling, found.missed, found.baseline_missed) == (6, 0, 0, 0)


def test_the_verdict_turns_at_the_ends_of_the_interval() -> None:
    _, low, high = by_hand()
    assert judge(high + 1e-9, pairs(OWN, BASELINE)).verdict == "holds here"
    assert judge(low - 1e-9, pairs(OWN, BASELINE)).verdict == "does not hold here"
    for claimed in (high - 1e-6, low + 1e-6):
        found = judge(claimed, pairs(OWN, BASELINE))
        assert found.verdict == "not decidable at this scale"
        assert "the interval holds the claimed" in found.reason


def test_how_many_more_pairs_would_decide_it() -> None:
    ratio, low, _ = by_hand()
    half_width = math.log(ratio / low)
    claimed = ratio * math.exp(half_width / 2)  # half as far as the interval reaches
    reason = judge(claimed, pairs(OWN, BASELINE)).reason
    assert "about 18 more pairs" in reason  # four times six pairs halve the width
    assert "more than 1000 more pairs" in judge(ratio, pairs(OWN, BASELINE)).reason


def test_few_pairs_and_misses_decide_nothing_they_do_not_show() -> None:
    few = judge(0.9, pairs(OWN[: FEWEST_PAIRS - 1], BASELINE[: FEWEST_PAIRS - 1]))
    assert (few.verdict, few.reason) == (
        "not decidable at this scale",
        "4 pairs, and a verdict takes 5",
    )
    none = judge(0.9, pairs([30.0] * 6, [30.0] * 6, budget=20.0))
    assert none.verdict == "not decidable at this scale"
    assert "in 6 more neither side reached the target" in none.reason
    # The submission always misses: that it needs more is known, how much more is not.
    missed = judge(0.6, pairs([30.0] * 6, BASELINE, budget=20.0))
    assert missed.verdict == "does not hold here" and missed.missed == 6
    assert missed.low is not None and missed.low > 1.8 and missed.high is None
    # The baseline always misses, so the ratio is at most what its budget shows.
    beaten = judge(0.6, pairs(OWN, [30.0] * 6, budget=20.0))
    assert beaten.verdict == "holds here" and beaten.low is None
    assert beaten.high == pytest.approx(0.25, rel=0.1)


@given(st.floats(0.05, 5.0), st.floats(0.05, 5.0))
def test_a_weaker_claim_is_never_judged_worse(one: float, other: float) -> None:
    order = ["does not hold here", "not decidable at this scale", "holds here"]
    stronger, weaker = sorted((one, other))
    sample = pairs(OWN, BASELINE)
    assert order.index(judge(stronger, sample).verdict) <= order.index(
        judge(weaker, sample).verdict
    )


def test_memory_that_no_method_can_save_decides_nothing() -> None:
    peaks = pairs([99e6, 98e6, 99e6, 98e6, 99e6], [100e6, 101e6, 100e6, 101e6, 100e6])
    found = judge_memory(0.1, peaks, model_bytes=1_000_000)
    assert found.verdict == "not decidable at this scale"
    assert "are 0.954 of the baseline's 95.4 MiB above the idle process" in found.reason
    # A model that fills most of it could have shown the claimed saving, and did not.
    assert judge_memory(0.1, peaks, model_bytes=95_000_000).verdict == "does not hold here"
    assert judge_memory(0.999, peaks, model_bytes=1_000_000).verdict == "holds here"


def entry(submission: str = "swift", machine: str = "one core", pairs: int = 6) -> Entry:
    side = Side(submission="swift", source_sha256="0" * 64, hyperparameters={"lr": 0.1}, trials=5)
    return Entry(
        submission=submission,
        metric="submission_time",
        baseline="adamw",
        workload="blobs/two",
        workload_version=1,
        claimed=0.5,
        statement="Twice as fast.",
        source="https://example.org",
        machine_class=machine,
        measured_on="2026-01-01",
        git_commit=None,
        own=side,
        other=side,
        verdict="holds here",
        reason="at most 0.4, claimed 0.5",
        ratio=0.4,
        low=None,
        high=0.4,
        pairs=pairs,
        untelling=0,
        missed=0,
        baseline_missed=2,
        left_out=0,
        run_ids=("a", "b"),
    )


def test_a_new_measurement_replaces_that_of_its_claim_and_machine_alone(tmp_path: Path) -> None:
    path = ledger_path(tmp_path / "home")
    assert read_ledger(path) == []
    for one in (entry("zeal"), entry(), entry(machine="another"), entry(pairs=9)):
        write_entry(path, one)
    assert read_ledger(path) == [entry(machine="another"), entry(pairs=9), entry("zeal")]
    assert [item.name for item in path.parent.iterdir()] == ["claims.json"]


def test_what_is_no_ledger_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "claims.json"
    for content, expected in (
        (b"[]", "is no ledger of claims"),
        (b'{"format": 1, "claims": [{}]}', "is no ledger of claims"),
        (msgspec.json.encode({"format": 2, "claims": []}), "has format 2; this version reads 1"),
    ):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=expected):
            write_entry(path, entry())
        assert path.read_bytes() == content
    path.unlink()
    path.mkdir()
    with pytest.raises(UsageError, match="cannot be read"):
        write_entry(path, entry())
