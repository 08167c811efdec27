"""The metric at equal time, from evaluations alone."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from records.synthetic_runs import SyntheticRun, workload_card

from harness.cards import Metric
from harness.judging.equal_time import Moment, metric_at


def written(home: Path, submission: str, *curves: tuple[float | None, ...], **changes: Any) -> None:
    for number, values in enumerate(curves):
        SyntheticRun(
            run_id=f"{submission}-{number}",
            submission=submission,
            source_sha256=submission[0] * 64,
            seed=number,
            values=values,
            outcome="budget",
            reason="the budget is used up",
            **changes,
        ).write(home)


def at(home: Path, amount: float, unit: str = "s", clock: Any = "cold") -> list[dict[str, Any]]:
    return metric_at(home, Moment(amount=amount, unit=unit), clock).to_dicts()


def test_the_best_value_by_then_counts(tmp_path: Path) -> None:
    written(tmp_path, "adamw", (0.3, 0.6, 0.5), (0.3, 0.5, 0.9), (0.3, 0.4, 0.4))
    written(tmp_path, "lion", (0.7, 0.8, 0.81))
    first, second = at(tmp_path, 2.0)
    assert (first["submission"], first["metric"], first["ended"]) == ("lion", 0.8, 0)
    assert (second["metric"], second["best"], second["worst"]) == (0.5, 0.6, 0.4)
    assert [row["rank"] for row in (first, second)] == [1, 2]
    adamw = at(tmp_path, 3.0)[1]
    assert (adamw["metric"], adamw["ended"]) == (0.6, 3)


def test_half_the_runs_without_an_evaluation_have_no_median(tmp_path: Path) -> None:
    written(tmp_path, "adamw", (None, 0.5), (None, 0.6), (0.9, 0.9))
    (row,) = at(tmp_path, 1.5)
    assert (row["rank"], row["metric"], row["best"], row["worst"]) == (None, None, 0.9, None)


def test_paces_and_the_warm_clock(tmp_path: Path) -> None:
    written(tmp_path, "adamw", (0.1, 0.2, 0.3), compile_s=0.5)
    assert at(tmp_path, 2.2)[0]["metric"] == 0.2
    assert at(tmp_path, 2200, "paces")[0]["metric"] == 0.2
    assert at(tmp_path, 2.6, clock="warm")[0]["metric"] == 0.3
    assert [at(tmp_path, 2.6, clock=clock)[0]["ended"] for clock in ("cold", "warm")] == [0, 1]


def test_a_loss_is_better_the_lower(tmp_path: Path) -> None:
    card = workload_card()
    loss = Metric(name="loss", direction="minimise", target=0.1)
    card = msgspec.structs.replace(card, metric=loss)
    written(tmp_path, "adamw", (0.9, 0.6, 0.7), workload=card)
    written(tmp_path, "lion", (0.9, 0.5, 0.4), workload=card)
    rows = at(tmp_path, 3.0)
    assert [(row["submission"], row["metric"]) for row in rows] == [("lion", 0.4), ("adamw", 0.6)]


def test_five_runs_give_rank_intervals(tmp_path: Path) -> None:
    written(tmp_path, "adamw", *((0.3 + n / 100,) for n in range(5)))
    written(tmp_path, "lion", *((0.8 + n / 100,) for n in range(5)))
    written(tmp_path, "sgd", (0.9,))
    ranks = [(row["submission"], row["rank_low"], row["rank_high"]) for row in at(tmp_path, 1.0)]
    assert ranks == [("sgd", None, None), ("lion", 1, 1), ("adamw", 2, 2)]


@pytest.mark.parametrize("moment", [Moment(amount=0.5, unit="s"), Moment(amount=5, unit="paces")])
def test_before_anything_was_evaluated_nobody_is_ranked(tmp_path: Path, moment: Moment) -> None:
    written(tmp_path, "adamw", (0.3,))
    assert metric_at(tmp_path, moment, "cold")["rank"].to_list() == [None]
