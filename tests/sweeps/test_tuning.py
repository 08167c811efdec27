"""`bench tune`: the points, what the runs say of them, and the card that keeps the best."""

from pathlib import Path

import pytest
from cli.test_bad_input import bench
from records.synthetic_runs import SyntheticRun

from harness import catalogue
from harness.cards import SubmissionCard, parse_card
from harness.errors import UsageError
from harness.sweeps.jobs import Slot
from harness.sweeps.points import search_space
from harness.sweeps.tuned_points import with_tuned_point
from harness.sweeps.tuning import points_to_try, trials_of, tuning_jobs

LION = catalogue.submission("lion").card
MLP = catalogue.workload("mlp").card
CPU = Slot(device="cpu")


def test_the_present_point_comes_first() -> None:
    points = points_to_try(LION, MLP, 4, 0)
    assert {name: float(text) for name, text in points[0].items()} == {
        "lr": 3e-3, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.01,
    }  # fmt: skip
    assert len(points) == 4 and len({tuple(point.items()) for point in points}) == 4
    assert points_to_try(LION, MLP, 6, 0)[:4] == points
    alone = points_to_try(LION, None, 1, 0)
    assert alone == [{name: h.default for name, h in search_space(LION).items()}]
    assert points_to_try(LION, MLP, 4, 1)[1:] != points[1:]


def test_points_of_a_part_beside_the_recipes_optimizer_and_of_the_recipe_itself() -> None:
    el2n, linear = (catalogue.submission(name).card for name in ("el2n", "linear"))
    resnet = catalogue.workload("resnet").card
    tuned = el2n.tuned["resnet/digits"].point
    now = points_to_try(el2n, resnet, 2, 0)[0]
    assert now.keys() == search_space(el2n).keys()
    assert float(now["keep_fraction"]) == float(tuned["keep_fraction"])
    assert float(points_to_try(linear, resnet, 2, 0)[0]["warmup_fraction"]) == 0.1
    assert "recipe" not in points_to_try(linear, None, 2, 0)[0].values()


def test_the_runs_become_trials_once_all_of_a_point_are_there(tmp_path: Path) -> None:
    points = points_to_try(LION, MLP, 3, 0)
    jobs = tuning_jobs("lion", {MLP.name: points}, 2, CPU, tmp_path)
    assert [(job.request.trial, job.request.study) for job in jobs] == [
        (trial, study) for trial in range(3) for study in range(2)
    ]
    ends = [("reached", 2), ("reached", 3), ("budget", None), ("reached", 2), ("crashed", None)]
    for number, (job, (outcome, credited)) in enumerate(zip(jobs, ends, strict=False)):
        SyntheticRun(
            run_id=str(number),
            identity=job.identity,
            workload=MLP,
            outcome=outcome,  # type: ignore[arg-type]
            values=(0.5, 0.8, 0.96, 0.97, 0.97),
            credited=credited,
        ).write(tmp_path)
    trials, missing = trials_of(jobs, points, tmp_path)
    assert missing == 2
    assert [(trial.number, trial.reached) for trial in trials] == [(0, 2), (1, 1)]
    budget_s = MLP.budget_paces * 1e-3
    assert trials[0].share_of_budget == pytest.approx(min(1, 3.5 / budget_s))
    assert trials[1].share_of_budget == pytest.approx((1 + min(1, 3 / budget_s)) / 2)


TEXT = """\
name: steady
title: Steady
kind: optimizer
implementation: steady:Steady
hyperparameters:
  lr: {default: 1}
# What the paper says.
claim: {metric: steps, baseline: adamw, workload: a/b, ratio: 0.5, statement: s, source: s}
"""


def put(text: str, workload: str = "mlp", lr: str = "0.5", trials: int = 7) -> str:
    return with_tuned_point(
        text,
        catalogue.workload(workload).card,
        {"lr": lr},
        trials=trials,
        source="by tests",
        origin="x.yaml",
    )


def test_a_point_is_added_and_replaced_and_the_rest_stays() -> None:
    once = put(TEXT)
    card = parse_card(once, SubmissionCard, "x.yaml")
    assert card.tuned["mlp/digits"].point == {"lr": "0.5"}
    assert card.tuned["mlp/digits"].trials == 7
    assert once.replace(once[once.index("tuned:") : once.index("# What")], "") == TEXT
    twice = put(put(once, "gpt", "0.1"), "mlp", "0.2", 9)
    tuned = parse_card(twice, SubmissionCard, "x.yaml").tuned
    assert {name: (t.point["lr"], t.trials) for name, t in tuned.items()} == {
        "mlp/digits": ("0.2", 9),
        "gpt/addition": ("0.1", 7),
    }
    without_claim = TEXT[: TEXT.index("# What")].rstrip("\n")
    assert "mlp/digits" in parse_card(put(without_claim), SubmissionCard, "x").tuned


def test_every_bundled_card_can_take_a_point() -> None:
    for entry in catalogue.submissions().values():
        space = search_space(entry.card)
        if space:
            name, known = next(iter(space.items()))
            text = entry.path.read_text()
            new = with_tuned_point(
                text,
                MLP,
                {name: known.default if known.default != "recipe" else "0.5"},
                trials=3,
                source="s",
                origin="x",
            )
            card = parse_card(new, SubmissionCard, "x")
            assert card.tuned["mlp/digits"].trials == 3
            others = {k: v for k, v in entry.card.tuned.items() if k != "mlp/digits"}
            assert {k: v for k, v in card.tuned.items() if k != "mlp/digits"} == others


def test_a_point_that_the_card_does_not_know_is_refused() -> None:
    with pytest.raises(UsageError, match=r"x\.yaml is invalid.*names `rate`"):
        with_tuned_point(TEXT, MLP, {"rate": "1"}, trials=1, source="s", origin="x.yaml")


def test_a_dry_run_and_the_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_RESULTS", str(tmp_path))
    code, out, err = bench(
        "tune", "-s", "lion", "-w", "mlp", "--trials", "3", "--seeds", "2", "--dry-run"
    )
    assert (code, err) == (0, "") and "6 of 6 runs to make" in out
    for arguments, said in (
        (("-s", "nothing", "-w", "mlp"), "The submission 'nothing' does not exist"),
        (("-s", "stablemax", "-w", "mlp"), "no search ranges"),
    ):
        code, out, err = bench("tune", *arguments)
        assert (code, out) == (2, "") and said in err
    assert list(tmp_path.iterdir()) == []
