from pathlib import Path

from records.synthetic_runs import SyntheticRun

from harness.judging.learning_curves import median_curves, traces


def written(home: Path, *runs: SyntheticRun) -> list[str]:
    home.mkdir(exist_ok=True)
    for run in runs:
        run.write(home)
    return [run.run_id for run in runs]


def test_the_median_curve_takes_medians_at_each_evaluation(tmp_path: Path) -> None:
    ids = written(
        tmp_path / "home",
        SyntheticRun(run_id="a", values=(0.1, 0.5, 0.92, 0.93), interval_s=1.0),
        SyntheticRun(run_id="b", values=(0.2, 0.4, 0.92, 0.93), interval_s=2.0),
        SyntheticRun(run_id="c", values=(0.3, 0.9, 0.95, 0.97), interval_s=4.0),
    )
    frame = median_curves(tmp_path / "home", [ids[:1], ids])
    whole = frame.filter(frame["row"] == 1)
    assert whole["value"].to_list() == [0.2, 0.5, 0.92, 0.93]
    assert whole["elapsed_s"].to_list() == [2.0, 4.0, 6.0, 8.0]
    assert whole["runs"].to_list() == [3, 3, 3, 3]
    assert whole["steps"].to_list() == [100, 200, 300, 400]
    assert whole["model_passes"].to_list() == [3000, 6000, 9000, 12000]
    alone = frame.filter(frame["row"] == 0)
    assert alone["value"].to_list() == [0.1, 0.5, 0.92, 0.93]


def test_the_median_curve_ends_where_fewer_than_half_go_on(tmp_path: Path) -> None:
    quick = {"values": (0.95, 0.95), "credited": 0}
    ids = written(
        tmp_path / "home",
        SyntheticRun(run_id="a", **quick),  # type: ignore[arg-type]
        SyntheticRun(run_id="b", **quick),  # type: ignore[arg-type]
        SyntheticRun(run_id="c", values=(0.1, 0.2, 0.3, 0.92, 0.93), credited=3),
    )
    assert len(median_curves(tmp_path / "home", [ids])) == 2
    assert len(median_curves(tmp_path / "home", [ids[1:]])) == 5  # one of two is half


def test_what_is_no_number_leaves_a_gap_and_no_figure(tmp_path: Path) -> None:
    ids = written(
        tmp_path / "home",
        SyntheticRun(run_id="a", values=(0.5, None), outcome="diverged", credited=None),
    )
    assert median_curves(tmp_path / "home", [ids])["value"].to_list() == [0.5, None]
    assert traces(tmp_path / "home", ids)["value"].to_list() == [0.5, None]


def test_compilation_is_taken_off_on_the_warm_clock(tmp_path: Path) -> None:
    ids = written(tmp_path / "home", SyntheticRun(run_id="a", compile_s=0.5))
    for frame in (
        median_curves(tmp_path / "home", [ids], "warm"),
        traces(tmp_path / "home", ids, "warm"),
    ):
        assert frame["elapsed_s"].to_list() == [0.5, 1.5, 2.5, 3.5]


def test_thinned_traces_keep_the_crossing_and_its_confirmation(tmp_path: Path) -> None:
    values = [0.001 * n for n in range(98)] + [0.95, 0.96]
    ids = written(tmp_path / "home", SyntheticRun(run_id="a", values=values, credited=98))
    frame = traces(tmp_path / "home", ids, most_points=12)
    assert 10 <= len(frame) <= 12
    assert frame["index"].to_list()[-2:] == [98, 99]
    assert frame["index"][0] == 0
    assert len(traces(tmp_path / "home", ids)) == 100


def test_no_runs_no_curve(tmp_path: Path) -> None:
    written(tmp_path / "home", SyntheticRun(run_id="a"))
    assert median_curves(tmp_path / "home", [[]]).is_empty()
    assert traces(tmp_path / "home", []).is_empty()
