from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.home import cache_folder, index_path, paces_folder, results_home, runs_folder


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_RESULTS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))


def test_the_option_goes_before_the_variable_and_it_before_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert results_home(None) == tmp_path / "results"
    monkeypatch.setenv("BENCH_RESULTS", "variable")
    assert results_home(None) == tmp_path / "variable"
    assert results_home("option") == tmp_path / "option"
    assert results_home("") == tmp_path / "variable"
    monkeypatch.setenv("BENCH_RESULTS", "")
    assert results_home(None) == tmp_path / "results"


def test_a_home_directory_is_filled_in(tmp_path: Path) -> None:
    assert results_home("~/results") == tmp_path / "me" / "results"


def test_asking_makes_nothing(tmp_path: Path) -> None:
    home = results_home("deep/er")
    assert [runs_folder(home).name, paces_folder(home).name] == ["runs", "paces"]
    assert index_path(home) == home / "bench.duckdb"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "option", ["~nobody-of-that-name/x", "a" * 300, "\x00", "file", "file/below"]
)
def test_an_impossible_folder_is_a_users_error(tmp_path: Path, option: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"^The results folder .* cannot be used: .*--results\."):
        results_home(option)


def test_the_cache_follows_the_specification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "timetrial"
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert cache_folder() == tmp_path / "me" / ".cache" / "timetrial"


def test_a_user_without_a_home_directory_is_told_what_to_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(UsageError, match=r"home directory\. Set XDG_CACHE_HOME to the folder"):
        cache_folder()
