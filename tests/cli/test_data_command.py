"""`bench data`, and how `bench run` and others treat data files that are not there."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli.test_bad_input import bench
from data_server import Server, served
from example_cards import WORKLOAD, changed
from test_catalogue import install

import harness.run
from harness import catalogue, data_files
from harness.prepared_paths import SPLITS, split_path

IMAGES, LABELS = bytes(range(256)) * 4000, b"labels"


@pytest.fixture
def server() -> Iterator[Server]:
    with served() as server:
        server.files = {"/images.bin": IMAGES, "/labels.bin": LABELS}
        yield server


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A real workload of two files, blobs/two, and one whose file has no address."""
    files = [
        {
            "name": f"blobs/{name}.bin",
            "bytes": str(len(content)),
            "sha256": hashlib.sha256(content).hexdigest(),
            "url": server.url(f"/{name}.bin"),
        }
        for name, content in {"images": IMAGES, "labels": LABELS}.items()
    ]
    by_hand = {"name": "made/text.txt", "bytes": "3", "sha256": "a" * 64, "how": "Join the books."}
    cards = {
        "two.yaml": _real("blobs/two", files),
        "text.yaml": _real("made/text", [by_hand]),
    }
    site = tmp_path / "site"
    install(site, cards, group="workloads")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("BENCH_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("BENCH_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("COLUMNS", "160")
    catalogue.workloads.cache_clear()
    yield tmp_path / "data"
    catalogue.workloads.cache_clear()


def _real(name: str, files: list[dict[str, str]]) -> dict[str, Any]:
    document = changed(changed(WORKLOAD, "name", name), "tier", "real")
    return changed(changed(document, "data|licence", "CC BY 4.0"), "data|files", files)


def put(folder: Path, **contents: bytes) -> None:
    for name, content in contents.items():
        path = folder / "blobs" / f"{name}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def listed(*arguments: str) -> dict[str, Any]:
    code, out, err = bench("data", "list", "--format", "json", *arguments)
    assert (code, err) == (0, "")
    return {row["workload"]: row for row in json.loads(out)}


# -- list ----------------------------------------------------------------------------------


def test_list_has_every_real_workload_with_its_files(folder: Path) -> None:
    rows = listed()
    real = {n for n, entry in catalogue.workloads().items() if entry.card.tier == "real"}
    assert rows.keys() == real
    row = rows["blobs/two"]
    assert (row["state"], row["prepared"], row["licence"]) == ("missing", False, "CC BY 4.0")
    assert row["bytes"] == len(IMAGES) + len(LABELS)
    images = row["files"][0]
    assert images["name"] == "blobs/images.bin" and images["path"] == f"{folder}/blobs/images.bin"
    assert images["sha256"] == hashlib.sha256(IMAGES).hexdigest()


def test_list_says_the_worst_of_the_states(folder: Path) -> None:
    put(folder, images=IMAGES)
    row = listed()["blobs/two"]
    assert [file["state"] for file in row["files"]] == ["present", "missing"]
    assert row["state"] == "missing"
    put(folder, labels=LABELS)
    assert listed()["blobs/two"]["state"] == "present"
    put(folder, labels=b"LABELS")
    bench("data", "verify", "blobs/two")
    assert listed()["blobs/two"]["state"] == "damaged"


def test_list_in_words(folder: Path) -> None:
    put(folder, images=IMAGES)
    for split in SPLITS:
        path = split_path(catalogue.workload("made/text").card, split)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    code, out, _ = bench("data", "list")
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert code == 0
    assert "1.02  missing (1 of 2)" in lines["blobs/two"] and "CC BY 4.0" in lines["blobs/two"]
    assert "missing, prepared" in lines["made/text"]
    assert f"The files' folder: {folder}" in out


def test_the_option_goes_before_the_variable_and_is_forgotten(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "other", images=IMAGES, labels=LABELS)
    assert listed("--data-dir", "other")["blobs/two"]["state"] == "present"
    assert os.environ["BENCH_DATA_DIR"] == str(folder)
    monkeypatch.delenv("BENCH_DATA_DIR")
    assert listed("--data-dir", "other")["blobs/two"]["files"][0]["path"].startswith(str(tmp_path))
    assert "BENCH_DATA_DIR" not in os.environ
    path = listed()["blobs/two"]["files"][0]["path"]
    assert path == str(tmp_path / "cache" / "timetrial" / "data" / "blobs" / "images.bin")


# -- get -----------------------------------------------------------------------------------


def test_get_downloads_what_is_not_there(folder: Path, server: Server) -> None:
    put(folder, labels=LABELS)
    code, out, err = bench("data", "get", "blobs/two")
    assert (code, out) == (0, "")
    assert server.asked == ["/images.bin"]
    assert f"2 of 2 files are in {folder}, verified (1 downloaded)." in err
    assert (folder / "blobs" / "images.bin").read_bytes() == IMAGES
    code, _, err = bench("data", "get", "blobs/two")
    assert code == 0 and "(0 downloaded)" in err
    assert server.asked == ["/images.bin"]
    assert listed()["blobs/two"]["state"] == "verified"


def test_get_replaces_what_is_damaged(folder: Path, server: Server) -> None:
    put(folder, images=IMAGES[::-1], labels=LABELS)
    assert bench("data", "get", "blobs/two")[0] == 0
    assert server.asked == ["/images.bin"]
    assert (folder / "blobs" / "images.bin").read_bytes() == IMAGES


def test_get_takes_files_and_each_once(folder: Path, server: Server) -> None:
    code, _, err = bench("data", "get", "blobs/labels.bin", "blobs/labels.bin")
    assert code == 0 and "1 of 1 files" in err
    assert server.asked == ["/labels.bin"]


def test_get_into_a_named_folder(folder: Path, tmp_path: Path) -> None:
    assert bench("data", "get", "blobs/two", "--data-dir", str(tmp_path / "new"))[0] == 0
    assert (tmp_path / "new" / "blobs" / "images.bin").is_file()
    assert not folder.exists()


def test_get_goes_on_after_a_failure_and_tells_it(folder: Path, server: Server) -> None:
    del server.files["/images.bin"]
    code, _, err = bench("data", "get", "blobs/two", "made/text")
    assert code == 1
    assert f"Error: {server.url('/images.bin')} cannot be downloaded: the server answers 404" in err
    assert "Error: made/text.txt is no single official file. Join the books. It belongs at" in err
    assert f"1 of 3 files are in {folder}, verified (1 downloaded)." in err
    assert (folder / "blobs" / "labels.bin").is_file()


def test_get_tells_wrong_content_and_a_dead_server(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/images.bin"] = IMAGES[::-1]
    code, _, err = bench("data", "get", "blobs/images.bin")
    assert code == 1 and "is not the file that the card says" in err
    server.shutdown()
    server.server_close()
    code, _, err = bench("data", "get", "blobs/images.bin")
    assert code == 1 and "cannot be downloaded: Connection refused" in err
    assert "Traceback" not in err


def test_get_of_an_embedded_workload_has_nothing_to_do() -> None:
    code, out, err = bench("data", "get", "resnet")
    assert (code, out, err) == (0, "", "These workloads need no files.\n")


def test_get_of_an_unwritable_folder_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, err = bench("data", "get", "blobs/two", "--data-dir", str(tmp_path / "file" / "below"))
    assert code == 2
    assert "cannot be stored: Not a directory" in err or "cannot be used" in err


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("blobs/tow", "Did you mean 'blobs/two'"),
        ("blobs/image.bin", "Did you mean 'blobs/images.bin'"),
        ("@reel", "The suite 'reel' does not exist. Did you mean 'real'"),
    ],
)
@pytest.mark.parametrize("command", ["get", "verify"])
def test_unknown_targets_get_the_nearest_names(command: str, target: str, hint: str) -> None:
    code, out, err = bench("data", command, target)
    assert (code, out) == (2, "") and hint in err


# -- verify --------------------------------------------------------------------------------


def test_verify_hashes_again(folder: Path) -> None:
    put(folder, images=IMAGES, labels=LABELS)
    code, out, _ = bench("data", "verify", "blobs/two")
    assert code == 0 and out.count("verified") == 2
    path = folder / "blobs" / "labels.bin"
    status = path.stat()
    path.write_bytes(b"LABELS")  # as long, and as old
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert listed()["blobs/two"]["state"] == "verified"
    code, out, _ = bench("data", "verify", "blobs/two")
    assert code == 1 and "damaged" in out
    assert f"1 of 2 files are missing or damaged in {folder}. `bench data get`" in out


def test_verify_without_names_takes_all(folder: Path) -> None:
    put(folder, images=IMAGES)
    code, out, _ = bench("data", "verify", "--format", "json")
    states = {row["name"]: row["state"] for row in json.loads(out)}
    assert code == 1
    assert states.keys() == data_files.known_files().keys()
    assert states["blobs/images.bin"] == "verified" and states["made/text.txt"] == "missing"


# -- what runs needs -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "-s", "adamw", "-w", "blobs/two", "--device", "cpu"],
        ["pace", "-w", "blobs/two", "--device", "cpu"],
        ["calibrate", "blobs/two", "--device", "cpu"],
    ],
)
def test_missing_files_are_told_before_anything_starts(
    arguments: list[str], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness.run, "ensure_pace", _must_not_start)
    code, out, err = bench(*arguments)
    assert (code, out) == (2, "")
    assert (
        f"blobs/two needs blobs/images.bin, blobs/labels.bin, which cannot be found in {folder}"
        in err
    )
    assert "`bench data get blobs/two` downloads" in err
    assert not (tmp_path / "results").exists()
    code, _, err = bench(*arguments, "--data-dir", str(tmp_path / "other"))
    assert code == 2 and f"cannot be found in {tmp_path / 'other'}" in err


def _must_not_start(*arguments: object, **options: object) -> None:
    raise AssertionError("something was started")


def test_a_suite_tells_of_all_its_workloads_at_once() -> None:
    code, _, err = bench("run", "-s", "adamw", "-w", "@real", "--device", "cpu")
    assert code == 2
    assert "blobs/two" in err and "made/text" in err and "made/text.txt: Join the books." in err


def test_the_catalogue_lists_workloads_whose_data_are_absent() -> None:
    code, out, _ = bench("list", "workloads")
    assert code == 0 and "blobs/two" in out
