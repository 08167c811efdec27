"""What AlgoPerf's workloads have to reach, and which of them count.

v0.5's and v0.6's are known by name; a file has AlgoPerf's own form (`base_workloads`,
`held_out_workloads`, `workloads`), as JSON or YAML, and may add to a workload `variant_of` and
`max_runtime_s`.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from harness.cards import parse_struct, read_mapping
from harness.errors import UsageError, did_you_mean

Goal = Literal["minimize", "maximize"]

KNOWN = ("v0.5", "v0.6")

# For a file that does not say `target_metric_goal`, as AlgoPerf's older ones.
_GOALS: dict[str, Goal] = {
    **dict.fromkeys(("loss", "ce_loss", "ctc_loss", "l1_loss"), "minimize"),
    **dict.fromkeys(("wer", "error_rate", "ppl"), "minimize"),
    **dict.fromkeys(("accuracy", "ssim", "bleu", "mean_average_precision"), "maximize"),
}


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A workload's target in AlgoPerf's words; other keys of theirs are read past."""

    target_metric_name: str
    validation_target_value: float
    target_metric_goal: Goal | None = None
    variant_of: str | None = None
    max_runtime_s: float | None = None

    @property
    def column(self) -> str:
        """The column of the logs that decides."""
        return f"validation/{self.target_metric_name}"

    @property
    def goal(self) -> Goal:
        """Whether the metric is to fall or to rise to the target."""
        return self.target_metric_goal or _GOALS[self.target_metric_name]


class Targets(msgspec.Struct, frozen=True, kw_only=True):
    """What is scored: `base_workloads` count, `held_out_workloads` decide over theirs."""

    base_workloads: tuple[str, ...]
    workloads: dict[str, Target]
    held_out_workloads: tuple[str, ...] = ()
    self_tuning_budget_factor: float = 1.0

    @property
    def variants(self) -> dict[str, str]:
        """The base workload of each held-out one."""
        return {name: self._base_of(name) for name in self.held_out_workloads}

    def _base_of(self, name: str) -> str:
        """Return what `variant_of` says, else the longest base that the name begins with.

        AlgoPerf takes the first whose name occurs anywhere: `lm` for `lm_large_var`.
        """
        stated = self.workloads[name].variant_of
        if stated is not None:
            return stated
        bases = [base for base in self.base_workloads if name.startswith(f"{base}_")]
        return max(bases, key=len, default="")


def targets_named(text: str) -> Targets:
    """Return the targets of that name, else those in the file of that path.

    Raises:
        UsageError: neither a known name nor a file; a file without the form of targets.
    """
    path = Path(text).expanduser()
    if text in KNOWN:
        path = Path(__file__).with_name(f"{text}.yaml")
    elif not path.is_file():
        raise UsageError(
            f"The targets {text!r} do not exist. {did_you_mean(text, KNOWN)}"
            f"Known by name: {', '.join(KNOWN)}; or name a JSON or YAML file of the form of "
            f"AlgoPerf's workload_targets.json."
        )
    return read_targets(path)


def read_targets(path: Path) -> Targets:
    """Return the targets in a file.

    Raises:
        UsageError: the file cannot be read or has not the form of targets; names the field.
    """
    targets = parse_struct(_fields(path), Targets, f"targets file {path}")
    problem = _problem(targets)
    if problem:
        raise UsageError(f"The targets file {path} is invalid: {problem}")
    return targets


def fitting(workloads: Collection[str]) -> str | None:
    """Return the name of the known targets that logs of these workloads were made for."""
    for name in KNOWN:
        targets = targets_named(name)
        expected = targets.held_out_workloads or targets.base_workloads
        if any(workload in expected for workload in workloads):
            return name
    return None


def _fields(path: Path) -> dict[str, Any]:
    if path.suffix != ".json":
        return read_mapping(path, "targets file")
    try:
        fields = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"The targets file {path} cannot be read: {error}.") from None
    if not isinstance(fields, dict):
        raise UsageError(f"The targets file {path} must be a mapping of keys to values.")
    return fields


def _problem(targets: Targets) -> str | None:
    """Return what is wrong between the fields, each being right by itself."""
    if not targets.base_workloads:
        return "base_workloads is empty: name the workloads that the score averages over."
    for name in (*targets.base_workloads, *targets.held_out_workloads):
        if name not in targets.workloads:
            return f"{name} is to be scored and has no target under `workloads`."
    for name, target in targets.workloads.items():
        if target.target_metric_goal is None and target.target_metric_name not in _GOALS:
            return (
                f"nobody knows whether {target.target_metric_name} of {name} should rise or fall. "
                f"Add `target_metric_goal`: minimize or maximize."
            )
    return _variant_problem(targets.variants, targets.base_workloads)


def _variant_problem(variants: Mapping[str, str], bases: Collection[str]) -> str | None:
    for name, base in variants.items():
        if base not in bases:
            return (
                f"the held-out workload {name} is a variant of {base or 'no base workload'}. "
                f"Add `variant_of`, one of: {', '.join(bases)}."
            )
    return None
