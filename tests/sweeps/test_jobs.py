"""From a sweep's file to its runs: order, seeds, points, identities."""

from collections import Counter
from pathlib import Path

import pytest

from harness import catalogue
from harness.cards import parse_struct
from harness.errors import UsageError
from harness.sweeps.jobs import Job, Slot, jobs_of
from harness.sweeps.sweep_file import SweepFile, read_sweep_file

HOME = Path("nowhere")
CPU = Slot(device="cpu")


def sweep(**fields: object) -> SweepFile:
    spelt = {"submissions": [{"submission": "adamw"}, {"submission": "lion"}], "workloads": ["mlp"]}
    return parse_struct(spelt | fields, SweepFile, "sweep")


def told(jobs: list[Job]) -> list[tuple[str, str, int]]:
    return [(job.submission, job.workload, job.seed) for job in jobs]


def test_the_submissions_take_turns_and_another_begins_each_round() -> None:
    jobs = jobs_of(sweep(workloads=["mlp", "finetune"], seeds=2), CPU, HOME)
    assert told(jobs) == [
        ("adamw", "mlp/digits", 0),
        ("lion", "mlp/digits", 0),
        ("adamw", "finetune/digits", 0),
        ("lion", "finetune/digits", 0),
        ("lion", "mlp/digits", 1),
        ("adamw", "mlp/digits", 1),
        ("lion", "finetune/digits", 1),
        ("adamw", "finetune/digits", 1),
    ]
    assert len({job.identity for job in jobs}) == len(jobs)


def test_suites_and_families_are_named_once_each() -> None:
    jobs = jobs_of(sweep(workloads=["mlp", "@smoke", "mlp/digits"]), CPU, HOME)
    assert Counter(job.workload for job in jobs) == {"mlp/digits": 2, "finetune/digits": 2}


def test_an_identity_stays_with_its_question() -> None:
    def identities(slot: Slot = CPU, **fields: object) -> set[str]:
        return {job.identity for job in jobs_of(sweep(**fields), slot, HOME)}

    three = identities(seeds=3)
    assert identities(seeds=2) < three
    assert identities(first_seed=1, seeds=2) < three
    assert identities() == identities(submissions=[{"submission": "lion"}, {"submission": "adamw"}])
    by_hand = [{"submission": "lion", "set": {"lr": "0.1"}}, {"submission": "adamw"}]
    assert len(identities(submissions=by_hand) & identities()) == 1
    assert not identities(budget_paces="10") & three
    assert not identities(Slot(device="cpu", beside=1), seeds=3) & three


def test_a_ruleset_gives_every_trial_its_point_and_seed() -> None:
    jobs = jobs_of(sweep(ruleset="external", trials=3, studies=2), CPU, HOME)
    lion = [job for job in jobs if job.submission == "lion"]
    assert [job.seed for job in lion] == list(range(6))
    assert [(job.request.study, job.request.trial) for job in lion] == [
        (study, trial) for trial in range(3) for study in range(2)
    ]
    assert len({job.request.settings for job in lion}) == 6
    assert {job.request.tuning_effort for job in lion} == {"trial of 3"}
    assert {job.request.ruleset for job in lion} == {"external"}
    searched = {setting.partition("=")[0] for setting in lion[0].request.settings}
    ranges = catalogue.submission("lion").card.hyperparameters
    assert searched == {f"lion.{name}" for name, known in ranges.items() if known.search}
    again = jobs_of(sweep(ruleset="external", trials=3, studies=2), CPU, HOME)
    assert [job.identity for job in again] == [job.identity for job in jobs]
    other = jobs_of(sweep(ruleset="external", trials=3, studies=2, points_seed=1), CPU, HOME)
    assert not {job.identity for job in other} & {job.identity for job in jobs}


def test_listed_points_are_tried_in_their_order() -> None:
    points = [{"lr": "0.1"}, {"lr": "0.2"}]
    jobs = jobs_of(
        sweep(submissions=[{"submission": "lion", "points": points}], ruleset="external"),
        CPU,
        HOME,
    )
    assert [job.request.settings for job in jobs] == [("lr=0.1",)] * 3 + [("lr=0.2",)] * 3
    assert {job.request.tuning_effort for job in jobs} == {"trial of 2"}


def test_self_tuning_takes_one_setting_and_a_larger_budget() -> None:
    tuned = catalogue.submission("lion").card.tuned["mlp/digits"]
    assert tuned.version == catalogue.workload("mlp").card.version
    by_workload = jobs_of(sweep(), CPU, HOME)
    one_for_all = jobs_of(sweep(ruleset="self-tuning"), CPU, HOME)
    budget = catalogue.workload("mlp").card.budget_paces
    assert {job.request.budget_paces for job in one_for_all} == {1.5 * budget}
    assert len(one_for_all) == 6
    assert [job.request.tuned for job in one_for_all] == [False] * 6
    assert not {job.identity for job in one_for_all} & {job.identity for job in by_workload}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"trials": 2}, "studies and trials belong to a ruleset"),
        ({"ruleset": "external", "seeds": 3}, "a ruleset has studies and trials"),
        ({"ruleset": "best-of"}, "The ruleset 'best-of' does not exist"),
        ({"ruleset": "self-tuning", "trials": 2}, "under self-tuning a study is one run"),
        ({"submissions": []}, "need at least one entry"),
        ({"seeds": "0"}, "field `seeds`: must be a whole number >= 1, not '0'"),
        ({"sedes": "3"}, "field `sedes`: unknown. Did you mean 'seeds'"),
        ({"submissions": [{"submission": "a", "points": [{"lr": "1"}]}]}, "external tuning"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        sweep(**fields)


def test_a_submission_named_twice_is_refused() -> None:
    twice = sweep(submissions=[{"submission": "lion"}, {"submission": "lion"}])
    with pytest.raises(UsageError, match="asks twice for lion on mlp/digits with seed 0"):
        jobs_of(twice, CPU, HOME)


def test_a_submission_without_ranges_cannot_be_tuned() -> None:
    asked = sweep(submissions=[{"submission": "torch.optim:NAdam"}], ruleset="external")
    with pytest.raises(UsageError, match=r"torch\.optim:NAdam has no search ranges"):
        jobs_of(asked, CPU, HOME)


def test_a_file_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(
        "submissions:\n- adamw\n- {submission: lion, set: {lr: 0.01}}\nworkloads: [mlp]\nseeds: 2\n"
    )
    expected = sweep(
        submissions=[{"submission": "adamw"}, {"submission": "lion", "set": {"lr": "0.01"}}],
        seeds=2,
    )
    assert read_sweep_file(path) == expected
    path.write_text("submissions: [adamw]\nworkloads: [mlp]\nseeds: many\n")
    with pytest.raises(UsageError, match=rf"The sweep {path} is invalid, field `seeds`"):
        read_sweep_file(path)
    with pytest.raises(UsageError, match=r"The sweep .*absent\.yaml cannot be read"):
        read_sweep_file(tmp_path / "absent.yaml")
