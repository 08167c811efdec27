from pathlib import Path

import pytest
from records.synthetic_runs import SyntheticRun
from reports.report_runs import make_home

from harness.errors import UsageError
from harness.reports.gathering import Gathered, gather
from harness.reports.plots import (
    plot_curves,
    plot_leaderboard,
    plot_pareto,
    plot_profiles,
)
from harness.reports.writing import check_picture


@pytest.fixture(scope="module")
def gathered(tmp_path_factory: pytest.TempPathFactory) -> Gathered:
    home = make_home(tmp_path_factory.mktemp("plots") / "home")
    return gather(home, [], [], "cold")


def test_pictures_hold_what_they_are_about(gathered: Gathered) -> None:
    curves = plot_curves(gathered, "passes", "svg").decode()
    for text in ("blobs/two v1", "blobs/three v1", "model passes", "accuracy ≥ 0.9000", ">adamw"):
        assert text in curves, text
    profile = plot_profiles(gathered, "svg").decode()
    assert "adamw (1.0000)" in profile
    assert "2 workloads" in profile
    assert "energy, J" in plot_pareto(gathered, "energy", "svg").decode()
    board = plot_leaderboard(gathered, "svg").decode()
    assert ">1  adamw" in board
    assert ">sgd" in board  # without a rank


def test_formats_are_real(gathered: Gathered) -> None:
    assert plot_leaderboard(gathered, "png").startswith(b"\x89PNG")
    assert plot_leaderboard(gathered, "pdf").startswith(b"%PDF")


def test_the_same_runs_make_the_same_picture(gathered: Gathered) -> None:
    assert plot_pareto(gathered, "memory", "svg") == plot_pareto(gathered, "memory", "svg")


def test_a_picture_that_nobody_could_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.png, \.svg, \.pdf, not as 'x.jpg' does"):
        check_picture(Path("x.jpg"))
    home = tmp_path / "home"
    home.mkdir()
    for number in range(13):
        SyntheticRun(run_id=f"a{number}", machine_class=f"machine {number}").write(home)
    many = gather(home, [], [], "cold")
    with pytest.raises(UsageError, match="13 panels"):
        plot_curves(many, "time", "svg")
    with pytest.raises(UsageError, match="no performance profile"):
        plot_profiles(many, "svg")
    with pytest.raises(UsageError, match="energy"):
        plot_pareto(many, "energy", "svg")


def test_names_are_no_formulas(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    SyntheticRun(run_id="a", submission=r"$\frac$ and $x").write(home)
    assert r"$\frac$ and $x" in plot_curves(gather(home, [], [], "cold"), "time", "svg").decode()
