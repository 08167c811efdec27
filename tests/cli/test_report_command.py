import csv
import errno
import json
import os
from pathlib import Path

import pytest
from cli.test_bad_input import bench
from reports.report_runs import HOSTILE, add_hostile, make_home

from harness.reports.tables import TABLES


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("report") / "home")


def done(*arguments: str | Path) -> str:
    code, out, err = bench(*map(str, arguments))
    assert code in (0, None), err
    return out


def refused(*arguments: str | Path) -> str:
    code, out, err = bench(*map(str, arguments))
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    return err


def test_the_page_is_written_where_it_is_asked_for(home: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("an older one")
    done("report", "-o", page, "--results", home)
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert list(tmp_path.iterdir()) == [page]


def test_the_page_has_a_default_place(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done("report", "--results", home)
    assert (tmp_path / "report.html").is_file()


def test_json_has_every_table_and_field(home: Path) -> None:
    content = json.loads(done("report", "--format", "json", "--results", home))
    assert list(content) == list(TABLES)
    first = content["leaderboard"][0]
    assert (first["rank"], first["submission"], first["kinds"]) == (1, "adamw", ["optimizer"])
    assert len(content["runs"]) == 22
    assert sum(not run["counts"] for run in content["runs"]) == 1
    table = json.loads(done("report", "--format", "json", "--table", "pareto", "--results", home))
    assert [row["pareto_front"] for row in table] == [True, True, True, True]


def test_csv_is_a_file_a_table(home: Path, tmp_path: Path) -> None:
    done("report", "--format", "csv", "-o", tmp_path / "tables", "--results", home)
    names = {path.name for path in (tmp_path / "tables").iterdir()}
    assert names == {f"{name}.csv" for name in TABLES}
    with (tmp_path / "tables" / "runs.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 22
    one = done("report", "--format", "csv", "--table", "leaderboard", "--results", home)
    assert (tmp_path / "tables" / "leaderboard.csv").read_text() == one


def test_markdown_reads_as_the_page_does(home: Path) -> None:
    text = done("report", "--format", "md", "-w", "blobs/two", "--results", home)
    assert "blobs/two, to accuracy ≥ 0.9000: adamw in 3.12 s (median of 5 runs), 1.96 times" in text
    assert "| 1 | adamw | 5/5 | 3.12 |" in text
    assert "`bench run -s lion -w blobs/two" in text
    assert "blobs/three" not in text


def test_markdown_holds_no_markup_of_strangers(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", seeds=1)
    add_hostile(home)
    text = done("report", "--format", "md", "--results", home)
    assert HOSTILE.split("<")[-1].replace(">", "") in text
    assert "<script" not in text
    assert "<img" not in text


@pytest.mark.parametrize("form", ["html", "md"])
def test_a_full_disk_leaves_the_old_file(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    page = tmp_path / "page.html"
    page.write_text("an older one")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left" in refused("report", "-o", page, "--format", form, "--results", home)
    assert page.read_text() == "an older one"
    assert list(tmp_path.iterdir()) == [page]


def test_mistakes_are_named_before_the_work(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert "no folder" in refused("report", "-o", tmp_path / "none" / "x.html", "--results", home)
    assert "is a folder" in refused("report", "-o", tmp_path, "--results", home)
    assert "is a file" in refused("report", "--format", "csv", "-o", file, "--results", home)
    assert "-o tables/" in refused("report", "--format", "csv", "--results", home)
    assert "has all tables" in refused("report", "--table", "runs", "--results", home)
    assert "leaderboard, pareto, provenance" in refused(
        "report", "--table", "nothing", "--format", "json", "--results", home
    )
    assert "'lyon'" in refused("report", "-s", "adamw,lyon", "--results", home)
    assert "Nothing is measured" in refused("report", "--results", tmp_path / "empty")


def test_pictures_are_drawn(home: Path, tmp_path: Path) -> None:
    for kind in ("curve", "profile", "pareto", "leaderboard"):
        picture = tmp_path / f"{kind}.svg"
        done("plot", kind, "-o", picture, "--results", home)
        assert "adamw" in picture.read_text()
    done("plot", "curve", "--x", "steps", "-s", "lion", "-o", tmp_path / "x.png", "--results", home)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert "name ends in .png, .svg, .pdf" in refused(
        "plot", "curve", "-o", tmp_path / "x.gif", "--results", home
    )


def test_without_matplotlib_the_command_says_what_to_install(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    error = refused("plot", "curve", "-o", tmp_path / "x.svg", "--results", home)
    assert "pip install 'timetrial[plots]'" in error
