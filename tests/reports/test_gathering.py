import dataclasses
import shutil
from pathlib import Path

import pytest
from records.synthetic_runs import SyntheticRun
from reports.report_runs import CARDS, make_home, run_directory

from harness.errors import UsageError
from harness.reports.curves import Limits, drawn_rows, learning_curves
from harness.reports.findings import caveats, findings
from harness.reports.gathering import gather, kinds_of
from harness.reports.profiles import performance_profiles
from harness.reports.provenance import environments, origin
from harness.reports.suite import score_cells, scores


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("gathering") / "home")


def test_a_section_is_a_workload_and_its_rows_have_their_runs(home: Path) -> None:
    gathered = gather(home, [], [], "cold")
    assert [section.workload for section in gathered.sections] == ["blobs/three", "blobs/two"]
    two = gathered.sections[1]
    assert [(row.submission, len(row.runs)) for row in two.rows] == [
        ("adamw", 5),
        ("lion", 5),
        ("sgd", 2),
    ]
    assert [run["seed"] for run in two.rows[0].counted] == [0, 1, 2, 3, 4]
    assert two.rows[0].median_run["run_id"] == "20240101-1-adamw-2".replace("-1-", "-0-")
    assert two.rows[2].median_run["run_id"] == "20240102-missed"


def test_a_selection_shows_less_and_leaves_ranks_alone(home: Path) -> None:
    gathered = gather(home, ["blobs/two"], ["lion", "sgd"], "cold")
    assert [section.workload for section in gathered.sections] == ["blobs/two"]
    assert [(row.submission, row.figures["rank"]) for row in gathered.rows] == [
        ("lion", 2),
        ("sgd", None),
    ]
    assert gathered.submissions == ["adamw", "lion", "sgd"]  # looks are given out among all
    assert any("ranks are among all" in caveat for caveat in caveats(gathered))


def test_an_unknown_name_is_refused_with_those_that_were_measured(home: Path) -> None:
    with pytest.raises(UsageError, match=r"'lyon'.*Did you mean 'lion'.*adamw, lion, sgd"):
        gather(home, [], ["lyon"], "cold")
    with pytest.raises(UsageError, match=r"'blobs/too'.*blobs/three, blobs/two"):
        gather(home, ["blobs/too"], [], "cold")
    with pytest.raises(UsageError, match="suite"):
        gather(home, ["@nonsense"], [], "cold")
    with pytest.raises(UsageError, match="None of the named"):
        gather(home, ["blobs/three"], ["sgd"], "cold")


def test_an_empty_home_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Nothing is measured.*bench run.*--results"):
        gather(tmp_path, [], [], "cold")


def test_kinds_come_from_cards() -> None:
    assert kinds_of("lion") == ("optimizer",)
    assert kinds_of("lion+ema") == ("optimizer", "averaging")
    assert kinds_of("torch.optim:NAdam") == ("optimizer",)
    assert kinds_of("my_own") == ("unlisted",)
    assert kinds_of("a++b") == ("unlisted",)


def test_findings_say_who_is_fastest_by_how_much_and_of_how_many(home: Path) -> None:
    found = findings(gather(home, ["blobs/two"], [], "cold"))
    assert [(one.section.workload, one.target) for one in found] == [
        ("blobs/two", "accuracy ≥ 0.9000")
    ]
    (finding,) = found[0].findings
    assert finding.submission == "adamw"
    assert finding.sentence == (
        "in 3.12 s (median of 5 runs), 1.96 times faster than lion (median of 5 runs)."
    )


def test_caveats_name_few_runs_and_tainted_ones(home: Path) -> None:
    said = " ".join(caveats(gather(home, [], [], "cold")))
    assert "no rank interval: 1 of 5 rows" in said
    assert "left out of rankings and medians: 1 of 22 runs" in said
    assert "machine classes" not in said


def test_curves_are_of_the_best_row_of_a_submission_and_effort(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for number in range(6):
        SyntheticRun(
            run_id=f"a{number}",
            interval_s=1 + number,
            hyperparameters={"lr": number},
            tuning_effort="6 trials",
        ).write(home)
    SyntheticRun(run_id="b", tuning_effort="defaults", interval_s=9).write(home)
    section = gather(home, [], [], "cold").sections[0]
    assert [(row.effort, row.point) for row in drawn_rows(section)] == [
        ("6 trials", {"lr": 0}),
        ("defaults", {"optimizer.lr": 0.001}),
    ]


def test_traces_are_limited_and_the_tainted_stand_in_where_nothing_counts(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for seed in range(7):
        SyntheticRun(run_id=f"a{seed}", seed=seed, interval_s=1 + seed).write(home)
        SyntheticRun(run_id=f"b{seed}", submission="lion", taints=["drift"]).write(home)
    (series,) = learning_curves(gather(home, [], [], "cold"), Limits(traces=3))
    adamw, lion = series
    assert [trace.run["run_id"] for trace in adamw.traces] == ["a0", "a3", "a6"]
    assert adamw.median is not None
    assert adamw.median.elapsed_s == [4.0, 8.0, 12.0, 16.0]
    assert lion.median is None
    assert len(lion.traces) == 3


def test_limits_bound_the_points_of_everything(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    values = [n / 400 for n in range(300)] + [0.95, 0.95]
    for number in range(8):
        SyntheticRun(
            run_id=f"a{number}", submission=f"m{number}", values=values, credited=300
        ).write(home)
    limits = Limits(points=160)
    (series,) = learning_curves(gather(home, [], [], "cold"), limits)
    for one in series:
        assert one.median is not None
        assert len(one.median.value) <= 21
        assert one.median.value[-1] == 0.95
        assert all(len(trace.points.value) <= 21 for trace in one.traces)
    (fewer,) = learning_curves(gather(home, [], [], "cold"), Limits(series=2))
    assert len(fewer) == 2


def test_a_profile_needs_two_submissions_on_two_workloads(home: Path) -> None:
    (profile,) = performance_profiles(gather(home, [], [], "cold"))
    assert profile.submissions == ["adamw", "lion"]  # sgd was run on one workload only
    assert profile.workloads == ["blobs/three v1", "blobs/two v1"]
    assert profile.scores[0] == pytest.approx(1.0)
    assert 0.6 < profile.scores[1] < 0.7  # ~1.96 times slower: (4 - 1.96) / 3
    assert profile.shares[1][0] == 0
    assert profile.shares[1][-1] == 1
    assert performance_profiles(gather(home, ["blobs/two"], [], "cold")) == []


def test_a_profile_is_scored_among_all_whoever_is_shown(home: Path) -> None:
    (whole,) = performance_profiles(gather(home, [], [], "cold"))
    (part,) = performance_profiles(gather(home, [], ["lion"], "cold"))
    assert part.submissions == ["lion"]
    assert part.scores[0] == whole.scores[1]


def test_the_environment_is_that_of_a_machine_class(home: Path) -> None:
    (found,) = environments(gather(home, [], [], "cold"))
    assert found.packages["torch"] == "2.13.0"
    assert dict(found.fields)["git.commit"] == "c0ffee"
    assert found.commits == {"c0ffee": 22}


def test_commands_make_a_row_again(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for seed in range(3):
        SyntheticRun(run_id=f"a{seed}", seed=seed, submission="x; rm -rf ~").write(home)
    section = gather(home, [], [], "cold").sections[0]
    found = origin(section, section.rows[0])
    assert found.command == (
        "bench run -s 'x; rm -rf ~' -w blobs/two --set optimizer.lr=0.001 --seeds 3"
    )
    assert "not in the catalogue" in found.remark


def test_a_damaged_newest_run_is_no_obstacle(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", seeds=2)
    gather(home, [], [], "cold")
    shutil.rmtree(run_directory(home, "20240102-tainted").folder)
    folder = run_directory(home, "20240102-missed").folder
    (folder / "environment.json").unlink()
    assert gather(home, [], [], "cold").sections[1].spec.workload.name == "blobs/two"


def test_a_suites_score_stands_beside_the_profile(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for number, card in enumerate(CARDS):
        for seed in range(5):
            reference = SyntheticRun(
                run_id=f"{number}-adamw-{seed}",
                seed=seed,
                workload=card,
                tuning_effort="reference",
                interval_s=1 + seed / 100,
            )
            reference.write(home)
            dataclasses.replace(
                reference,
                run_id=f"{number}-lion-{seed}",
                submission="lion",
                tuning_effort="5 trials",
                interval_s=reference.interval_s / 2,
            ).write(home)
    dataclasses.replace(reference, run_id="sgd", submission="sgd", tuning_effort="defaults").write(
        home
    )
    found = scores(gather(home, [], [], "cold"))
    assert {row["submission"]: round(row["score"], 3) for row in found.rows} == {
        "adamw": 0.5,
        "lion": 0.75,  # twice as fast; sgd has run one of the two
    }
    assert [score_cells(group)[0]["score"] for group in found.groups] == ["0.7500", "0.5000"]
    assert [row["submission"] for row in scores(gather(home, [], ["lion"], "cold")).rows] == [
        "lion"
    ]
    assert scores(gather(home, ["blobs/two"], [], "cold")).rows == []
