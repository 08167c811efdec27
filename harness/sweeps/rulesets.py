"""AlgoPerf's rulesets as data: how often a submission may try, and how its tries are counted.

Dahl et al. 2023, "Benchmarking Neural Network Training Algorithms" (2306.07179); the numbers of
v0.5 and v0.6 of the benchmark's rules. v0.6's are the default.
"""

from dataclasses import dataclass
from typing import Literal

from harness.errors import one_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Ruleset:
    """`studies` repetitions of `trials` points each.

    `external`: every trial is another point, and a study's result is its best trial's.
    `self`: one setting for all workloads, none tuned on any, and a larger budget.
    """

    name: str
    tuning: Literal["external", "self"]
    studies: int
    trials: int
    budget_factor: float  # of the workload's budget


RULESETS = {
    ruleset.name: ruleset
    for ruleset in (
        Ruleset(name="external", tuning="external", studies=3, trials=5, budget_factor=1.0),
        Ruleset(name="external-v0.5", tuning="external", studies=5, trials=5, budget_factor=1.0),
        Ruleset(name="self-tuning", tuning="self", studies=3, trials=1, budget_factor=1.5),
        Ruleset(name="self-tuning-v0.5", tuning="self", studies=5, trials=1, budget_factor=3.0),
    )
}


def ruleset_named(name: str) -> Ruleset:
    """Return a ruleset.

    Raises:
        UsageError: no such ruleset.
    """
    if name not in RULESETS:
        raise one_of("The ruleset", name, RULESETS)
    return RULESETS[name]
