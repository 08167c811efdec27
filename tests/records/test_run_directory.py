import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from records.synthetic_runs import SyntheticRun, set_owner

from harness.events import Ended, Evaluation, Started
from harness.home import runs_folder
from harness.records.run_directory import (
    HEARTBEAT_STALE_S,
    Owner,
    RunDirectory,
    run_directories,
)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    run = SyntheticRun(run_id="a", output="hello\n")
    directory = run.write(tmp_path)
    assert directory.run_id == "a"
    assert directory.spec() == run.spec()
    assert directory.events() == run.events()
    assert [reading.memory_bytes for reading in directory.readings()] == [100 << 20]
    assert directory.environment()["git"] == {"commit": "c0ffee", "dirty": False}
    assert list(directory.sources()) == ["method.py"]
    assert directory.output() == "hello\n"


def test_a_run_id_is_used_once(tmp_path: Path) -> None:
    SyntheticRun(run_id="a").write(tmp_path)
    with pytest.raises(FileExistsError):
        SyntheticRun(run_id="a").write(tmp_path)


def test_events_are_on_disk_at_once(tmp_path: Path) -> None:
    run = SyntheticRun(run_id="a")
    writer = run.start(tmp_path)
    assert RunDirectory(writer.folder).events() == run.events()[:-1]
    writer.close()


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path: Path) -> None:
    directory = SyntheticRun(run_id="a").write(tmp_path)
    log = directory.folder / "events.jsonl"
    log.write_bytes(log.read_bytes()[:-20])
    kinds = [type(event) for event in directory.events()]
    assert kinds[0] is Started and kinds[-1] is Evaluation
    assert Ended not in kinds


def test_missing_parts_are_empty(tmp_path: Path) -> None:
    directory = SyntheticRun(run_id="a").write(tmp_path)
    for name in ("environment.json", "events.jsonl", "telemetry.jsonl", "output.txt"):
        (directory.folder / name).unlink()
    assert directory.environment() == {}
    assert directory.events() == []
    assert directory.readings() == []
    assert directory.output() == ""


def test_a_run_lives_until_it_is_closed(tmp_path: Path) -> None:
    writer = SyntheticRun(run_id="a").start(tmp_path)
    directory = RunDirectory(writer.folder)
    assert directory.is_live()
    writer.close()
    assert not directory.is_live()


def test_this_host_asks_for_the_process_not_for_the_heartbeat(tmp_path: Path) -> None:
    writer = SyntheticRun(run_id="a").start(tmp_path)
    _age(writer.folder, 10 * HEARTBEAT_STALE_S)  # a referee stopped in a debugger, say
    assert RunDirectory(writer.folder).is_live()
    writer.close()


def test_a_run_of_an_ended_process_is_dead(tmp_path: Path) -> None:
    directory = SyntheticRun(run_id="a").abandon(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    set_owner(directory.folder, pid=process.pid)
    assert not directory.is_live()


def test_a_recycled_pid_is_another_process(tmp_path: Path) -> None:
    directory = SyntheticRun(run_id="a").abandon(tmp_path)
    ticks = Owner.current().started_ticks
    assert ticks is not None
    set_owner(directory.folder, started_ticks=ticks)
    assert directory.is_live()
    set_owner(directory.folder, started_ticks=ticks - 1)
    assert not directory.is_live()


def test_a_run_from_before_the_last_boot_is_dead(tmp_path: Path) -> None:
    directory = SyntheticRun(run_id="a").abandon(tmp_path)
    set_owner(directory.folder, boot_id="another boot")
    assert not directory.is_live()


@pytest.mark.parametrize(
    ("age_s", "live"), [(HEARTBEAT_STALE_S / 2, True), (2 * HEARTBEAT_STALE_S, False)]
)
def test_another_host_is_judged_by_its_heartbeat(tmp_path: Path, age_s: float, live: bool) -> None:
    directory = SyntheticRun(run_id="a").abandon(tmp_path)
    set_owner(directory.folder, host=f"not-{socket.gethostname()}")
    _age(directory.folder, age_s)
    assert directory.is_live() is live


def test_a_directory_just_being_made_is_live(tmp_path: Path) -> None:
    directory = SyntheticRun(run_id="a").abandon(tmp_path)
    (directory.folder / "process.json").write_bytes(b"{")
    assert directory.is_live()
    _age(directory.folder, 2 * HEARTBEAT_STALE_S)
    assert not directory.is_live()


def test_the_heartbeat_beats(tmp_path: Path) -> None:
    writer = SyntheticRun(run_id="a").start(tmp_path)
    _age(writer.folder, 100.0)
    writer.beat()  # too soon after the start: costs nothing
    assert time.time() - (writer.folder / "heartbeat").stat().st_mtime > 50
    writer._beaten_at -= 100.0
    writer.beat()
    assert time.time() - (writer.folder / "heartbeat").stat().st_mtime < 50
    writer.close()


def test_only_run_directories_are_listed(tmp_path: Path) -> None:
    assert list(run_directories(runs_folder(tmp_path))) == []
    for name in ("b", "a"):
        SyntheticRun(run_id=name).write(tmp_path)
    (runs_folder(tmp_path) / "a folder").mkdir()
    (runs_folder(tmp_path) / "a file").touch()
    assert [run.run_id for run in run_directories(runs_folder(tmp_path))] == ["a", "b"]


def _age(folder: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(folder / "heartbeat", (then, then))
