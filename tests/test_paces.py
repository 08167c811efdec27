import multiprocessing
import socket
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from records.synthetic_runs import workload_card

from harness.errors import UsageError
from harness.paces import load_pace, median_ns, pace_path, store_pace

CARD = workload_card()


def test_a_stored_pace_is_read_again(tmp_path: Path) -> None:
    path = pace_path(tmp_path / "deep" / "er", CARD, "a machine")
    assert load_pace(path) is None
    stored = store_pace(path, CARD, "a machine", [40, 10, 30, 20])
    assert load_pace(path) == stored
    assert (stored.pace_ns, stored.steps) == (20, 4)
    assert (stored.quartile_low_ns, stored.quartile_high_ns) == (20, 40)
    assert (stored.workload, stored.workload_version) == ("blobs/two", 1)
    assert (stored.host, stored.machine_class) == (socket.gethostname(), "a machine")
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_storing_replaces(tmp_path: Path) -> None:
    path = pace_path(tmp_path, CARD, "a machine")
    store_pace(path, CARD, "a machine", [1000])
    assert store_pace(path, CARD, "a machine", [5]) == load_pace(path)


def test_another_card_version_machine_or_host_is_another_pace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def paths() -> list[Path]:
        machines = ("CPU, 1 core", "CPU, 1-core", "CPU × 1", "CPU · 1")  # alike but for signs
        cards = (CARD, workload_card(version=2), workload_card("blobs/two-v1"))
        return [pace_path(tmp_path, card, machine) for card in cards for machine in machines]

    here = paths()
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    assert len({*here, *paths()}) == 24


def test_a_long_name_fits_a_file_system(tmp_path: Path) -> None:
    path = pace_path(tmp_path, CARD, "a very long name of a machine, " * 20)
    assert store_pace(path, CARD, "x", [1]) == load_pace(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"pace_ns": 1}',
        b'{"workload": "\xff"}',
        "negative",
        "zero",
        "text",
    ],
)
def test_a_damaged_file_is_named_with_the_fix(tmp_path: Path, content: bytes | str) -> None:
    path = pace_path(tmp_path, CARD, "a machine")
    pace = msgspec.to_builtins(store_pace(path, CARD, "a machine", [7]))
    if isinstance(content, str):
        wrong = {"negative": -7, "zero": 0, "text": "7"}[content]
        content = msgspec.json.encode(pace | {"pace_ns": wrong})
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"The stored pace .*\.json is damaged \(.*Delete it"):
        load_pace(path)


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be read: .*Is a directory: "):
        load_pace(tmp_path)


def test_a_failed_write_leaves_the_old_pace_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pace_path(tmp_path, CARD, "a machine")
    stored = store_pace(path, CARD, "a machine", [7])

    def full(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        store_pace(path, CARD, "a machine", [9])
    assert load_pace(path) == stored
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def _store_often(path: Path, value: int) -> None:
    for _ in range(200):
        store_pace(path, CARD, "a machine", [value] * value)


def test_a_reader_never_sees_half_a_pace(tmp_path: Path) -> None:
    path = pace_path(tmp_path, CARD, "a machine")
    store_pace(path, CARD, "a machine", [1])
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_store_often, args=(path, value)) for value in (1, 50)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        pace = load_pace(path)
        assert pace is not None
        assert pace.pace_ns == pace.steps
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@given(st.lists(st.integers(min_value=0), min_size=1))
def test_the_median_is_one_of_the_samples_in_the_middle(sample_ns: list[int]) -> None:
    median = median_ns(sample_ns)
    assert median >= 1  # budgets divide by it
    assert median == 1 or median in sample_ns
    below = sum(value < median for value in sample_ns)
    above = sum(value > median for value in sample_ns)
    assert median == 1 or max(below, above) <= len(sample_ns) / 2
    assert sample_ns == list(sample_ns)
