import hashlib
import math
import tarfile
from pathlib import Path

import pytest
from interop.algoperf_tree import NAN, write_trial

from harness.errors import UsageError
from harness.interop.algoperf.imports import import_logs, import_named, imports
from harness.interop.algoperf.logs import read_logs
from harness.interop.algoperf.scoring import Rule, pool_of
from harness.interop.algoperf.targets import Target, Targets, targets_file

INF = math.inf


def target(metric: str, value: float, **more: str) -> Target:
    return Target(target_metric_name=metric, validation_target_value=value, **more)  # type: ignore[arg-type]


TARGETS = Targets(
    base_workloads=("x", "y"),
    workloads={"x": target("loss", 1.0), "y": target("accuracy", 0.9)},
)


def trial(tree: Path, workload: str = "x", study: int = 0, number: int = 1) -> Path:
    return tree / "external" / "adamw" / f"study_{study}" / f"{workload}_jax" / f"trial_{number}"


def study_times(tree: Path, rule: Rule = "documented") -> dict[tuple[str, str], list[float]]:
    logs = read_logs(tree)
    pool = pool_of(logs.evaluations.lazy(), logs.trials.lazy(), TARGETS, "external", rule)
    return {pair: list(times) for pair, times in pool.study_times.items()}


def test_a_tree_becomes_a_row_for_each_evaluation(tmp_path: Path) -> None:
    write_trial(trial(tmp_path, "x"), "loss", [(10.0, 2.0), (20.0, NAN)])
    write_trial(trial(tmp_path, "big_y", study=3, number=12), "accuracy", [(5.0, 0.1)])
    logs = read_logs(tmp_path)
    chosen = ["workload", "study", "trial", "evaluation", "score"]
    assert logs.evaluations.sort("workload", "evaluation").select(chosen).rows() == [
        ("big_y", 3, 12, 0, 5.0),
        ("x", 0, 1, 0, 10.0),
        ("x", 0, 1, 1, 20.0),
    ]
    losses = logs.evaluations.filter(workload="x")["validation/loss"].to_list()
    assert losses[0] == 2.0
    assert math.isnan(losses[1])
    assert logs.evaluations.filter(workload="big_y")["validation/loss"].to_list() == [None]
    assert logs.trials.select("ruleset", "submission", "framework", "evaluations").rows() == [
        ("external", "adamw", "jax", 1),
        ("external", "adamw", "jax", 2),
    ]
    assert logs.skipped == {}


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.xz"])
def test_an_archive_holds_the_same(tmp_path: Path, suffix: str) -> None:
    tree = tmp_path / "tree"
    write_trial(trial(tree), "loss", [(10.0, 2.0), (20.0, 0.5)])
    write_trial(trial(tree, "y"), "accuracy", [(10.0, 0.95)])
    archive = tmp_path / f"logs.{suffix}"
    with tarfile.open(archive, f"w:{suffix.partition('.')[2]}") as out:  # type: ignore[call-overload]
        out.add(tree, arcname=".")
    packed, plain = read_logs(archive), read_logs(tree)
    assert packed.trials.equals(plain.trials)
    keys = ["workload", "evaluation"]
    assert packed.evaluations.sort(keys).equals(plain.evaluations.sort(keys))


def test_what_is_out_of_place_or_damaged_is_skipped_and_said(tmp_path: Path) -> None:
    for study in range(4):
        write_trial(trial(tmp_path, study=study), "loss", [(10.0, 2.0)])
    bad = {
        "misplaced": write_trial(tmp_path / "adamw" / "study_0" / "trial_1", "loss", [(1.0, 1.0)]),
        "text": write_trial(trial(tmp_path, study=4), "loss", [(10.0, 2.0)]),
        "empty": write_trial(trial(tmp_path, study=6), "loss", []),
        "other": write_trial(trial(tmp_path, study=7), "loss", []),
    }
    bad["text"].write_text(bad["text"].read_text() + "what,is,this,line\n")
    bad["empty"].write_text("")
    bad["other"].write_text("step,loss\n1,2\n")
    logs = read_logs(tmp_path)
    why = {name: logs.skipped[path.relative_to(tmp_path).as_posix()] for name, path in bad.items()}
    assert why["misplaced"].startswith("outside any workload folder")
    assert why["text"].startswith("damaged: ")
    assert (why["empty"], why["other"]) == ("empty", "no column `score`")
    assert len(logs.skipped) == len(bad)
    assert logs.trials["study"].to_list() == [0, 1, 2, 3]
    assert logs.evaluations.height == 4


def test_line_ends_missing_or_in_excess_are_of_no_account(tmp_path: Path) -> None:
    write_trial(trial(tmp_path), "loss", [(10.0, 2.0), (20.0, 0.5)], end="\r\n")
    path = write_trial(trial(tmp_path, study=1), "loss", [(10.0, 2.0), (30.0, 0.5)])
    path.write_text(path.read_text().rstrip("\n"))
    blank = write_trial(trial(tmp_path, study=2), "loss", [(10.0, 2.0), (40.0, 0.5)])
    blank.write_text(blank.read_text().replace("\n", "\n\n"))
    assert study_times(tmp_path) == {("adamw", "x"): [20.0, 30.0, 40.0]}
    assert read_logs(tmp_path).trials["evaluations"].to_list() == [2, 2, 2]


def test_a_trial_without_evaluations_missed_its_target(tmp_path: Path) -> None:
    write_trial(trial(tmp_path), "loss", [])
    write_trial(trial(tmp_path, study=1), "loss", [(10.0, 0.5)])
    assert study_times(tmp_path) == {("adamw", "x"): [INF, 10.0]}


def test_the_first_crossing_counts_inclusively_and_nan_never(tmp_path: Path) -> None:
    write_trial(trial(tmp_path), "loss", [(10.0, NAN), (20.0, 1.1), (30.0, 1.0), (40.0, 5.0)])
    write_trial(trial(tmp_path, "y"), "accuracy", [(10.0, NAN), (20.0, 0.9), (30.0, 0.95)])
    write_trial(trial(tmp_path, "y", study=1), "accuracy", [(10.0, NAN), (20.0, 0.8999999999)])
    assert study_times(tmp_path) == {("adamw", "x"): [30.0], ("adamw", "y"): [20.0, INF]}


def test_nan_in_letters_is_no_number_either(tmp_path: Path) -> None:
    path = write_trial(trial(tmp_path, "y"), "accuracy", [(10.0, 0.5), (20.0, 0.95)])
    path.write_text(path.read_text().replace("0.5\n", "nan\n"))
    assert study_times(tmp_path) == {("adamw", "y"): [20.0]}


def test_a_study_takes_its_fastest_trial_or_as_published_the_earliest_evaluation(
    tmp_path: Path,
) -> None:
    write_trial(trial(tmp_path, number=1), "loss", [(10.0, 2.0), (900.0, 0.5)])
    write_trial(trial(tmp_path, number=2), "loss", [(100.0, 2.0), (200.0, 2.0), (300.0, 0.5)])
    write_trial(trial(tmp_path, number=3), "loss", [(10.0, 2.0)])
    # Two trials at one evaluation: the faster, whatever the file system lists first.
    write_trial(trial(tmp_path, study=1, number=1), "loss", [(130.0, 0.5)])
    write_trial(trial(tmp_path, study=1, number=2), "loss", [(110.0, 0.5)])
    assert study_times(tmp_path) == {("adamw", "x"): [300.0, 110.0]}
    assert study_times(tmp_path, "as-published") == {("adamw", "x"): [900.0, 110.0]}


def test_a_metric_that_the_logs_lack_is_refused(tmp_path: Path) -> None:
    write_trial(trial(tmp_path), "wer", [(10.0, 0.5)])
    with pytest.raises(UsageError, match=r"no column validation/loss\. They have: validation/wer"):
        study_times(tmp_path)
    # The other workload's files have the column; x's have not.
    write_trial(trial(tmp_path, "y"), "accuracy", [(10.0, 0.95)])
    write_trial(trial(tmp_path, "z"), "loss", [(10.0, 0.95)])
    with pytest.raises(UsageError, match=r"ask for loss of x.*They have: validation/wer"):
        study_times(tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), r"no logs in AlgoPerf's layout, SUBMISSION/study_K/"),
        (lambda path: path.write_text("no archive"), "cannot be read as an archive"),
        (lambda path: path.write_text(""), "cannot be read as an archive"),
        (
            lambda path: write_trial(path / "adamw" / "trial_1", "loss", [(1.0, 1.0)]),
            "of 1 such files none; adamw/trial_1/eval_measurements.csv: outside any workload",
        ),
    ],
)
def test_what_holds_no_logs_is_refused(tmp_path: Path, make: object, message: str) -> None:
    path = tmp_path / "logs"
    make(path)  # type: ignore[operator]
    with pytest.raises(UsageError, match=message):
        read_logs(path)


def test_an_import_says_where_it_came_from(tmp_path: Path) -> None:
    source, home = tmp_path / "v9 logs", tmp_path / "home"
    write_trial(trial(source), "loss", [(10.0, 2.0), (20.0, 0.5)])
    write_trial(source / "stray", "loss", [(10.0, 2.0)])
    with pytest.raises(UsageError, match="An import's name takes letters"):
        import_logs(home, source, None, None)
    made = import_logs(home, source, "v9", "v0.6")
    provenance = import_named(home, "v9").provenance
    assert provenance == made.provenance
    assert provenance.source == str(source)
    assert (provenance.files_read, provenance.evaluations) == (1, 2)
    assert provenance.submissions == {"external": ["adamw"]}
    assert list(provenance.skipped) == ["stray/eval_measurements.csv"]
    assert provenance.targets is not None
    content = targets_file("v0.6").read_bytes()
    assert provenance.targets.name == "v0.6"
    assert provenance.targets.sha256 == hashlib.sha256(content).hexdigest()
    assert made.table("evaluations").collect()["validation/loss"].to_list() == [2.0, 0.5]


def test_an_import_is_replaced_by_one_of_the_same_source_only(tmp_path: Path) -> None:
    source, home = tmp_path / "logs", tmp_path / "home"
    write_trial(trial(source), "loss", [(10.0, 2.0)])
    import_logs(home, source, None, None)
    write_trial(trial(source, study=1), "loss", [(10.0, 2.0)])
    assert import_logs(home, source, None, None).provenance.files_read == 2
    other = tmp_path / "other" / "logs"
    write_trial(trial(other), "loss", [(10.0, 2.0)])
    with pytest.raises(UsageError, match=r"The import 'logs' is of .*--name NAME"):
        import_logs(home, other, None, None)
    import_logs(home, other, "other", None)
    assert [one.name for one in imports(home)] == ["logs", "other"]
    assert sorted(path.name for path in (home / "imported" / "algoperf").iterdir()) == [
        "logs",
        "other",
    ]
