"""From imported logs and targets to what each study took."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from harness.errors import UsageError
from harness.interop.algoperf.logs import TIME
from harness.judging.performance_profile import Pool

if TYPE_CHECKING:
    import polars

    from harness.interop.algoperf.targets import Target, Targets

Rule = Literal["documented", "as-published"]
RULES: tuple[Rule, ...] = ("documented", "as-published")

_STUDY = ("submission", "workload", "study")
_TRIAL = (*_STUDY, "framework", "trial")


def pool_of(
    evaluations: "polars.LazyFrame",
    trials: "polars.LazyFrame",
    targets: "Targets",
    ruleset: str,
    rule: Rule,
) -> Pool:
    """Return the pool of one ruleset's submissions, those without a scored workload too.

    A study's time is that of its fastest trial. AlgoPerf's published tables take the trial that
    reached the target at the earliest evaluation, counted from the trial's first, which may be a
    slower one: `as-published`. Between trials of one evaluation the fastest is taken, where
    AlgoPerf takes the first that the file system lists.

    Raises:
        UsageError: the logs of a workload have no column for the target's metric.
    """
    import polars

    variants = targets.variants
    scored = (*targets.base_workloads, *variants)
    trials = trials.filter(polars.col("ruleset") == ruleset)
    submissions = trials.select(polars.col("submission").unique().sort()).collect()
    counted = trials.filter(polars.col("workload").is_in(scored)).select(_TRIAL).collect()
    crossings = _crossings(
        evaluations.filter(polars.col("ruleset") == ruleset),
        {name: targets.workloads[name] for name in sorted(set(counted["workload"]))},
    )
    order = ["seconds"] if rule == "documented" else ["evaluation", "seconds"]
    studies = (
        counted.join(crossings, on=_TRIAL, how="left")
        .sort(*order, *_TRIAL, nulls_last=True)
        .unique(_STUDY, keep="first", maintain_order=True)
        .with_columns(polars.col("seconds").fill_null(float("inf")))
        .sort(_STUDY)
    )
    times: dict[tuple[str, str], list[float]] = {}
    for submission, workload, seconds in studies.select(*_STUDY[:2], "seconds").iter_rows():
        times.setdefault((submission, workload), []).append(seconds)
    return Pool(
        submissions=tuple(submissions["submission"]),
        workloads=targets.base_workloads,
        study_times=times,
        variants=variants,
    )


def rulesets_in(trials: "polars.LazyFrame") -> list[str]:
    """Return the rulesets that the logs were run under; "" where no folder names one."""
    import polars

    return list(trials.select(polars.col("ruleset").unique().sort()).collect()["ruleset"])


def notes_on(pool: Pool) -> list[str]:
    """Return what a reader must know of a pool: what nobody ran, and what it costs whom."""
    ran = {workload for _, workload in pool.study_times}
    notes = [
        f"No submission ran {name}: it counts among the {len(pool.workloads)} workloads, and "
        f"nobody is credited on it."
        for name in pool.workloads
        if name not in ran
    ]
    notes += [
        f"No submission ran the held-out workload {name}, so nobody is credited on {base}."
        for name, base in pool.variants.items()
        if name not in ran
    ]
    return notes


def budgets_s(targets: "Targets", ruleset: str) -> dict[str, float]:
    """Return the seconds that a run may take on each base workload.

    Raises:
        UsageError: the targets do not say.
    """
    factor = targets.self_tuning_budget_factor if "self" in ruleset.rpartition("/")[2] else 1.0
    budgets = {name: targets.workloads[name].max_runtime_s for name in targets.base_workloads}
    missing = [name for name, budget in budgets.items() if budget is None]
    if missing:
        raise UsageError(
            f"--relative-to counts a missed workload with its budget, and the targets give no "
            f"`max_runtime_s` for {', '.join(missing)}. Add it to the targets' file."
        )
    return {name: factor * budget for name, budget in budgets.items() if budget is not None}


def _crossings(
    evaluations: "polars.LazyFrame", targets: "dict[str, Target]"
) -> "polars.DataFrame":
    """Return the first evaluation of each trial that meets its workload's target."""
    import polars

    known = evaluations.collect_schema().names()
    columns = sorted({target.column for target in targets.values()})
    for name, target in targets.items():
        if target.column not in known:
            raise _no_metric(name, target, known)
    wanted = (
        evaluations.filter(polars.col("workload").is_in(list(targets)))
        .select(*_TRIAL, "evaluation", polars.col(TIME).alias("seconds"), *columns)
        .collect()
    )
    _refuse_absent(wanted, targets)
    meets = polars.any_horizontal(
        (polars.col("workload") == name) & _meets(target) for name, target in targets.items()
    )
    met = wanted.filter(meets & polars.col("seconds").is_finite())
    return (
        met.sort("evaluation")
        .unique(_TRIAL, keep="first", maintain_order=True)
        .select(*_TRIAL, "evaluation", "seconds")
    )


def _meets(target: "Target") -> "polars.Expr":
    import polars

    value, limit = polars.col(target.column), target.validation_target_value
    # polars holds NaN to be greater than any number; here it meets nothing.
    within = value <= limit if target.goal == "minimize" else value >= limit
    return value.is_not_nan() & within


def _refuse_absent(evaluations: "polars.DataFrame", targets: "dict[str, Target]") -> None:
    import polars

    for name, target in targets.items():
        own = evaluations.filter(polars.col("workload") == name)
        if own.height and own[target.column].null_count() == own.height:
            present = [column for column in own.columns if own[column].null_count() < own.height]
            raise _no_metric(name, target, present)


def _no_metric(name: str, target: "Target", columns: Sequence[str]) -> UsageError:
    legal = [column for column in columns if column.startswith("validation/")]
    return UsageError(
        f"The targets ask for {target.target_metric_name} of {name}, and its logs have no column "
        f"{target.column}. They have: {', '.join(legal) or 'no validation metric'}."
    )
