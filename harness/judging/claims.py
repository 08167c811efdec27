"""A paper's claim against what was measured: does it hold here, not, or can that not be said?

A claim is a ratio: what the submission needs over what the baseline needs, of some unit, is at
most so much. The measured ratio comes from interleaved pairs (`harness.judging.comparison`) with
an interval of 95 %. Where the whole interval lies below the claimed ratio the claim holds here,
where it lies above it does not, and otherwise these pairs do not decide.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from harness.judging.comparison import Pair, compare_pairs

CONFIDENCE = 0.95
FEWEST_PAIRS = 5  # fewer say next to nothing of their own spread: no verdict
MOST_FURTHER = 1000

Verdict = Literal["holds here", "does not hold here", "not decidable at this scale"]
UNDECIDED: Verdict = "not decidable at this scale"


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What the pairs say of a claim; ratios are the submission's over the baseline's.

    None: not known; for an end of the interval, unbounded.
    """

    verdict: Verdict
    reason: str
    ratio: float | None
    low: float | None
    high: float | None
    pairs: int  # that tell something
    untelling: int  # both sides missed the target
    missed: int  # of the telling ones, by the submission
    baseline_missed: int


def judge(claimed: float, pairs: Sequence[Pair]) -> Judgement:
    """Judge a claimed ratio by pairs of the submission (`a`) and the baseline (`b`)."""
    found = compare_pairs(pairs, alpha=1 - CONFIDENCE)
    low, high = _inverse(found.high), _inverse(found.low)
    verdict, reason = _verdict(claimed, found.pairs, found.untelling, low, high)
    return Judgement(
        verdict=verdict,
        reason=reason,
        ratio=_inverse(found.ratio),
        low=low,
        high=high,
        pairs=found.pairs,
        untelling=found.untelling,
        missed=found.a_missed,
        baseline_missed=found.b_missed,
    )


def judge_memory(claimed: float, pairs: Sequence[Pair], model_bytes: int) -> Judgement:
    """Judge a claim on peak memory above the idle trainee's.

    Only what the model occupies can be saved. Where that is so small a part of the baseline's
    peak that a method without any of it would miss the claimed ratio, the claim asks for a
    larger model: `model_bytes` is what weights, gradients and the optimizer's state take.
    """
    found = judge(claimed, pairs)
    peaks = sorted(pair.b.value for pair in pairs)
    if found.verdict == "holds here" or not peaks:
        return found
    peak = peaks[len(peaks) // 2]
    if 1 - model_bytes / peak <= claimed:
        return found
    reason = (
        f"weights, gradients and optimizer state are {model_bytes / 2**20:.3g} of the baseline's "
        f"{peak / 2**20:.3g} MiB above the idle process"
    )
    return replace(found, verdict=UNDECIDED, reason=reason)


def _verdict(
    claimed: float, pairs: int, untelling: int, low: float | None, high: float | None
) -> tuple[Verdict, str]:
    if pairs < FEWEST_PAIRS:
        why = f"{pairs} pairs, and a verdict takes {FEWEST_PAIRS}"
        if untelling:
            why += f"; in {untelling} more neither side reached the target"
        return UNDECIDED, why
    if high is not None and high <= claimed:
        return "holds here", f"at most {high:.3g}, claimed {claimed:g}"
    if low is not None and low > claimed:
        return "does not hold here", f"at least {low:.3g}, claimed {claimed:g}"
    return (
        UNDECIDED,
        f"the interval holds the claimed {claimed:g}{_more(claimed, pairs, low, high)}",
    )


def _more(claimed: float, pairs: int, low: float | None, high: float | None) -> str:
    """Say how many more pairs would part the interval from the claim, if the ratio stays."""
    if low is None or high is None or low == high:
        return ""
    half_width = (math.log(high) - math.log(low)) / 2
    distance = abs((math.log(high) + math.log(low)) / 2 - math.log(claimed))
    if distance < half_width / math.sqrt((pairs + MOST_FURTHER) / pairs):
        return f", and more than {MOST_FURTHER} more pairs would be needed"
    further = math.ceil(pairs * (half_width / distance) ** 2) - pairs
    return f"; about {max(1, further)} more pairs would decide it if the ratio stays"


def _inverse(ratio: float | None) -> float | None:
    return None if not ratio else 1 / ratio
