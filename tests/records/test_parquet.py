"""Runs carried as Parquet rank as they do at home, however many homes lie side by side."""

from pathlib import Path

import polars
import pytest
from cli.test_bad_input import bench
from records.synthetic_runs import SyntheticRun

from harness.errors import UsageError
from harness.judging.leaderboard import leaderboard
from harness.records import parquet


def home_of(folder: Path, prefix: str, submission: str, runs: int) -> Path:
    for number in range(runs):
        SyntheticRun(
            run_id=f"{prefix}{number}",
            submission=submission,
            seed=number,
            interval_s=1 + number / 10,
            compile_s=0.25,
            taints=["drift"] if number == 2 else [],
        ).write(folder)
    return folder


def test_the_files_hold_what_the_index_holds(tmp_path: Path) -> None:
    home = home_of(tmp_path / "home", "a", "lion", 3)
    written = parquet.export(home, tmp_path / "out", "here")
    assert written == {"runs": 3, "evaluations": 12, "telemetry": 12, "notes": 3}
    for table, count in written.items():
        path = tmp_path / "out" / ("" if table == "runs" else table) / "here.parquet"
        assert len(polars.read_parquet(path)) == count
    runs = polars.read_parquet(tmp_path / "out" / "here.parquet").sort("run_id")
    assert runs["compile_s"].to_list() == [0.25] * 3
    assert runs["tainted"].to_list() == [[], [], ["drift"]]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.new")) == []


@pytest.mark.parametrize("clock", ["cold", "warm"])
def test_two_homes_rank_together_in_place(tmp_path: Path, clock: str) -> None:
    one = home_of(tmp_path / "one", "a", "lion", 3)
    other = home_of(tmp_path / "other", "b", "adamw", 2)
    both = home_of(home_of(tmp_path / "both", "a", "lion", 3), "b", "adamw", 2)
    for home, name in ((one, "one"), (other, "other"), (one, "one-again")):
        parquet.export(home, tmp_path / "out", name)
    pattern = str(tmp_path / "out" / "*.parquet")
    found = leaderboard(tmp_path / "nowhere", None, clock, pattern)  # type: ignore[arg-type]
    expected = leaderboard(both, None, clock)  # type: ignore[arg-type]
    assert found.to_dicts() == expected.to_dicts()
    assert found["runs"].to_list() == [2, 2]
    assert not (tmp_path / "nowhere").exists()


def test_what_holds_no_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"No file matches .*bench export parquet"):
        parquet.measured_in(str(tmp_path / "*.parquet"), "SELECT run_id FROM measured")
    polars.DataFrame({"a": [1]}).write_parquet(tmp_path / "other.parquet")
    with pytest.raises(UsageError, match="holds no runs"):
        parquet.measured_in(str(tmp_path / "*.parquet"), "SELECT run_id FROM measured")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        parquet.export(tmp_path / "home", tmp_path / "file", "x")


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_RESULTS", str(home_of(tmp_path / "home", "a", "lion", 2)))
    out = str(tmp_path / "out dir")
    code, said, err = bench("export", "parquet", out, "--name", "here")
    assert (code, err) == (0, "") and "2 runs, 8 evaluations" in said
    code, said, _ = bench("leaderboard", "--from", f"{out}/*.parquet")
    assert code == 0 and "lion" in said and "2/2" in said
    for arguments, words in (
        (("export", "parquet", out, "--name", "../x"), "--name takes letters"),
        (("leaderboard", "--from", "x", "--results", "y"), "Give one"),
        (("leaderboard", "--from", "it's none/*.parquet"), "No file matches"),
    ):
        code, _, err = bench(*arguments)
        assert code == 2 and words in err
