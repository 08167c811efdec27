"""What a comparison says: names for the sides, a row a workload, and the sentence at the end."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from harness.judging.comparison import Comparison, Verdict, median_ratio
from harness.run import Plan
from harness.sweeps.contest import Result, Terms
from harness.sweeps.pairs import Match, PairedRun
from harness.wording import OUTCOME_WORDS, counted

_TAINTS_SHOWN = 3
_SHOWN: tuple[Verdict, ...] = ("faster", "slower")


def side_names(match: Match) -> tuple[str, str]:
    """Return A's and B's names, with what tells them apart where the names do not."""
    a, b = match.a.resolved.name, match.b.resolved.name
    if a != b:
        return a, b
    own = [_settings(chosen, other) for chosen, other in ((match.a, match.b), (match.b, match.a))]
    if own[0] == own[1]:
        return f"{a} (A)", f"{b} (B)"
    return f"{a} ({own[0] or 'A'})", f"{b} ({own[1] or 'B'})"


def _settings(chosen: Plan, other: Plan) -> str:
    return ", ".join(text for text in chosen.request.settings if text not in other.request.settings)


def row(result: Result, terms: Terms) -> dict[str, Any]:
    """Return all that is known of a match, for programs."""
    match, comparison = result.match, result.comparison
    pairs = result.counted
    return {
        "workload": match.card.name,
        "workload_version": match.card.version,
        "machine_class": match.a.machine_class,
        "a": _side(match.a),
        "b": _side(match.b),
        "verdict": comparison.verdict,
        **{field.name: getattr(comparison, field.name) for field in dataclasses.fields(Comparison)},
        "further_pairs": None if result.decided(terms.effect) else result.further_pairs,
        "effect_ruled_out": comparison.rules_out(terms.effect),
        "log_rank_p": _log_rank_p(result, terms),
        "median_ratios": {
            "steps": median_ratio((p.a.steps_to_target, p.b.steps_to_target) for p in pairs),
            "model_passes": median_ratio(
                (p.a.model_passes_to_target, p.b.model_passes_to_target) for p in pairs
            ),
            "peak_memory": median_ratio((_memory(p.a), _memory(p.b)) for p in pairs),
            "energy": median_ratio(
                (p.a.energy_j, p.b.energy_j)
                for p in pairs
                if p.a.outcome == p.b.outcome == "reached"
            ),
        },
        "made": [
            {
                "seed": seed,
                "state": one.state,
                "a": _run(one.pair.a, terms),
                "b": _run(one.pair.b, terms),
            }
            for seed, one in result.seeds.items()
            if one.pair is not None
        ],
    }


def _log_rank_p(result: Result, terms: Terms) -> float | None:
    """Return how likely such different times are if the sides are alike, pairs left aside.

    Where runs miss, their pairs say little of the ratio, but the share that misses does count here.
    """
    from harness.judging.survival import log_rank

    pairs = [pair.amounts("time", terms.clock) for pair in result.counted]
    if not pairs:
        return None
    a = [(pair.a.value, pair.a.reached) for pair in pairs]
    return log_rank(a, [(pair.b.value, pair.b.reached) for pair in pairs])


def _side(chosen: Plan) -> dict[str, Any]:
    resolved = chosen.resolved
    return {
        "submission": resolved.name,
        "hyperparameters": resolved.hyperparameters,
        "tuning_effort": resolved.tuning_effort,
        "source_sha256": resolved.source_sha256,
    }


def _run(run: PairedRun, terms: Terms) -> dict[str, Any]:
    amount = run.amount("time", terms.clock)
    return {
        "run_id": run.run_id,
        "outcome": run.outcome,
        "tainted": list(run.tainted),
        "time_s": amount.value if amount.reached else None,
    }


def _memory(run: PairedRun) -> int | None:
    gpu = run.gpu_peak_memory_bytes
    return run.peak_memory_bytes if gpu is None else gpu


def cautions(results: Sequence[Result]) -> list[str]:
    """Return what must be known before the verdict is believed."""
    found = []
    differing = [one.match.card.name for one in results if _differ(one.match)]
    if differing:
        found.append(
            f"THE TUNING EFFORTS DIFFER on {', '.join(differing)}: different efforts are never "
            "ranked together, so this compares settings and not methods."
        )
    return found + [words for result in results for words in _left_out(result)]


def efforts(match: Match) -> str:
    """Return both sides' tuning efforts."""
    return f"{match.a.resolved.tuning_effort} : {match.b.resolved.tuning_effort}"


def _differ(match: Match) -> bool:
    return match.a.resolved.tuning_effort != match.b.resolved.tuning_effort


def _left_out(result: Result) -> list[str]:
    """Name the pairs that do not count, and why."""
    workload = result.match.card.name
    found = [
        f"Seed {pair.seed} on {workload} is left out: {run.run_id} "
        f"{OUTCOME_WORDS.get(run.outcome, run.outcome)}: {run.reason} (bench show {run.run_id})."
        for pair in result.left_out
        for run in pair.failures
    ]
    tainted = [pair for pair in result.left_out if not pair.failures]
    if tainted:
        reasons = Counter(reason for pair in tainted for reason in pair.taints)
        words = "; ".join(reason for reason, _ in reasons.most_common(_TAINTS_SHOWN))
        seeds = ", ".join(str(pair.seed) for pair in tainted)
        found.append(
            f"Left out on {workload}, tainted each time: seed{'s' * (len(tainted) > 1)} {seeds} "
            f"({words}). --retry-tainted tries again."
        )
    if result.given_up and not result.left_out:
        found.append(f"On {workload} both sides always miss the target: no more pairs are made.")
    return found


def figures(comparison: Comparison, *, inverted: bool = False) -> str:
    """Return the ratio b ÷ a, or a ÷ b, as `with_limits` does."""
    ratio, low, high = comparison.ratio, comparison.low, comparison.high
    if inverted:
        ratio, low, high = (None if x is None else 1 / x for x in (ratio, high, low))
    return with_limits(ratio, low, high)


def with_limits(ratio: float | None, low: float | None, high: float | None) -> str:
    """Return `1.21 (1.15 to 1.27)` of a ratio and its limits; empty where nothing is known."""
    narrow = low is not None and high is not None and high - low < 0.05
    decimals = 3 if narrow else 2

    def text(value: float) -> str:
        return f"{value:.{decimals}f}" if 0.01 <= value < 10 else f"{value:.3g}"

    limits = ""
    if low is not None and high is not None:
        limits = f"{text(low)} to {text(high)}"
    elif low is not None:
        limits = f"at least {text(low)}"
    elif high is not None:
        limits = f"at most {text(high)}"
    if ratio is None:
        return limits
    return f"{text(ratio)} ({limits})" if limits else text(ratio)


def sentence(results: Sequence[Result], terms: Terms) -> str:
    """Return the one sentence at the end."""
    if len(results) == 1:
        return _one(results[0], terms)
    a, b = side_names(results[0].match)
    verdicts = Counter(result.comparison.verdict for result in results)
    shown = [verdict for verdict in _SHOWN if verdicts[verdict]]
    if shown:
        first, *rest = [f"{verdicts[verdict]} of {len(results)} workloads" for verdict in shown]
        text = f"{a} is shown to be {shown[0]} than {b} on {first}"
        text += "".join(f" and {shown[1]} on {number}" for number in rest)
    else:
        text = f"{a} is shown to be neither faster nor slower than {b} on any of {len(results)}"
        text += " workloads"
    undecided = [one for one in results if not one.decided(terms.effect)]
    ruled_out = verdicts["no difference shown"] - len(undecided)
    if ruled_out:
        text += f"; on {ruled_out} a difference of {_percent(terms.effect)} is ruled out"
    more = [one.further_pairs for one in undecided if one.further_pairs is not None]
    if undecided:
        text += f"; on {len(undecided)} nothing is decided"
    if more:
        text += f", {_more(max(more), terms)} on each"
    return f"{text}."


def _one(result: Result, terms: Terms) -> str:
    comparison, metric = result.comparison, result.match.card.metric
    a, b = side_names(result.match)
    goal = f"to {metric.name} {metric.target:g} on {result.match.card.name}"
    pairs = f"{counted(comparison.pairs, 'pair')}{_missed(comparison, (a, b))}"
    if comparison.verdict != "no difference shown":
        known = figures(comparison, inverted=comparison.verdict == "slower")
        how_much = f"{known} times " if known else ""
        return f"{a} is {how_much}{comparison.verdict} than {b} {goal}, {pairs}."
    text = f"No difference shown between {a} and {b} {goal}"
    if comparison.pairs == 0:
        both = f"both missed in all of {counted(comparison.untelling, 'pair')}"
        return f"{text}: {both if comparison.untelling else 'no pair counts'}."
    known = figures(comparison)
    if known:
        text += f": {b} took {known} times as long"
    if comparison.rules_out(terms.effect):
        after = f"a difference of {_percent(terms.effect)} is ruled out"
    elif result.further_pairs is None:
        after = "how many more would decide it cannot be said yet"
    else:
        after = _more(result.further_pairs, terms)
    return f"{text}, {pairs}; {after}."


def _more(number: int, terms: Terms) -> str:
    effect = _percent(terms.effect)
    if number == 0:
        return f"these pairs would have shown {effect}"
    return f"about {counted(number, 'more pair')} would show {effect}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _missed(comparison: Comparison, names: Sequence[str]) -> str:
    parts = [
        f"{name} missed the target in {missed}"
        for name, missed in zip(names, (comparison.a_missed, comparison.b_missed), strict=True)
        if missed
    ]
    if comparison.untelling:
        parts.append(f"both in {comparison.untelling} more")
    return f" ({', '.join(parts)})" if parts else ""


def table_row(result: Result, terms: Terms) -> Mapping[str, str]:
    """Return a match's row for people."""
    full = row(result, terms)
    comparison = result.comparison
    pairs = result.counted
    reached = [
        sum(run.outcome == "reached" for run in runs)
        for runs in ([p.a for p in pairs], [p.b for p in pairs])
    ]
    more = full["further_pairs"]
    ratios = {
        name: "" if value is None else f"{value:.2f}"
        for name, value in full["median_ratios"].items()
    }
    return {
        "workload": result.match.card.name,
        "verdict": comparison.verdict,
        "ratio": figures(comparison),
        "efforts": efforts(result.match),
        "pairs": str(len(pairs)),
        "reached": f"{reached[0]} : {reached[1]}",
        "p": "" if not comparison.pairs else f"{comparison.adjusted_p:.2g}",
        "log_rank_p": "" if min(reached) == len(pairs) else f"{full['log_rank_p']:.2g}",
        **ratios,
        "more": "" if more is None else str(more),
        "left_out": str(len(result.left_out) or ""),
    }
