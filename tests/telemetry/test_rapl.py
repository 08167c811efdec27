from pathlib import Path

import pytest

from harness.telemetry.rapl import RaplCounter

RANGE_UJ = 262_143_328_850


class Clock:
    """A clock that tests move on, in nanoseconds."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns

    def advance(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


def make_domain(
    root: Path, folder: str, name: str, energy_uj: int, range_uj: int | None = RANGE_UJ
) -> Path:
    domain = root / folder
    domain.mkdir(parents=True)
    (domain / "name").write_text(f"{name}\n")
    (domain / "energy_uj").write_text(f"{energy_uj}\n")
    if range_uj is not None:
        (domain / "max_energy_range_uj").write_text(f"{range_uj}\n")
    return domain / "energy_uj"


def test_joules_since_construction(tmp_path: Path) -> None:
    clock = Clock()
    energy_file = make_domain(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    rapl = RaplCounter(tmp_path, clock)
    assert rapl.available
    assert rapl.energy_j() == 0.0
    clock.advance(1)
    energy_file.write_text("47500000\n")
    assert rapl.energy_j() == 42.5  # 47.5 J − 5 J
    assert rapl.energy_j() == 42.5


def test_packages_and_their_memory_are_summed_and_nothing_twice(tmp_path: Path) -> None:
    clock = Clock()
    counted = [
        make_domain(tmp_path, "intel-rapl:0", "package-0", 0),
        make_domain(tmp_path, "intel-rapl:0:1", "dram", 0),
        make_domain(tmp_path, "intel-rapl:1", "package-1", 0),
        make_domain(tmp_path, "intel-rapl:2", "package-1-die-1", 0),
    ]
    uncounted = [
        make_domain(tmp_path, "intel-rapl:0:0", "core", 0),
        make_domain(tmp_path, "intel-rapl:0:2", "uncore", 0),
        make_domain(tmp_path, "intel-rapl:3", "psys", 0),
        make_domain(tmp_path, "intel-rapl-mmio:0", "package-0", 0),
    ]
    (tmp_path / "intel-rapl").mkdir()  # the control type itself, without a counter
    rapl = RaplCounter(tmp_path, clock)
    clock.advance(1)
    for position, energy_file in enumerate(counted):
        energy_file.write_text(str(10**position * 1_000_000 // 10))  # 0.1, 1, 10, 100 J
    for energy_file in uncounted:
        energy_file.write_text("1000000")
    assert rapl.energy_j() == pytest.approx(111.1)


def test_wrap_around(tmp_path: Path) -> None:
    clock = Clock()
    energy_file = make_domain(tmp_path, "intel-rapl:0", "package-0", RANGE_UJ - 3_000_000)
    rapl = RaplCounter(tmp_path, clock)
    clock.advance(1)
    energy_file.write_text("4000000")
    assert rapl.energy_j() == 7.0  # 3 J up to the end of the range, 4 J after it
    clock.advance(1)
    energy_file.write_text("5000000")
    assert rapl.energy_j() == 8.0


def test_a_counter_that_was_reset_ends_the_measurement(tmp_path: Path) -> None:
    clock = Clock()
    energy_file = make_domain(tmp_path, "intel-rapl:0", "package-0", 100_000_000)
    rapl = RaplCounter(tmp_path, clock)
    clock.advance(1)
    energy_file.write_text("50000000")  # as a wrap-around this would be 262 kJ in a second
    assert rapl.energy_j() is None
    assert not rapl.available
    assert rapl.unavailable_reason is not None
    assert "package-0" in rapl.unavailable_reason
    assert "backwards" in rapl.unavailable_reason
    clock.advance(1)
    energy_file.write_text("60000000")
    assert rapl.energy_j() is None


def test_without_a_range_nothing_wraps_around(tmp_path: Path) -> None:
    clock = Clock()
    energy_file = make_domain(tmp_path, "intel-rapl:0", "package-0", 3_000_000, range_uj=None)
    rapl = RaplCounter(tmp_path, clock)
    clock.advance(1000)
    energy_file.write_text("2000000")
    assert rapl.energy_j() is None


def test_a_jump_ends_the_measurement(tmp_path: Path) -> None:
    clock = Clock()
    energy_file = make_domain(tmp_path, "intel-rapl:0", "package-0", 0)
    rapl = RaplCounter(tmp_path, clock)
    clock.advance(1)
    energy_file.write_text("90000000000")  # 90 kW
    assert rapl.energy_j() is None
    assert "jumped" in (rapl.unavailable_reason or "")


def test_no_powercap(tmp_path: Path) -> None:
    rapl = RaplCounter(tmp_path / "missing")
    assert not rapl.available
    assert "no RAPL package" in (rapl.unavailable_reason or "")
    assert rapl.energy_j() is None


def test_root_only_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    energy_file = make_domain(tmp_path, "intel-rapl:0", "package-0", 1)
    read_text = Path.read_text

    def refuse(path: Path) -> str:
        if path == energy_file:
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path)

    # Not by chmod: tests may run as root, whom it does not stop.
    monkeypatch.setattr(Path, "read_text", refuse)
    rapl = RaplCounter(tmp_path)
    assert not rapl.available
    assert rapl.energy_j() is None
    reason = rapl.unavailable_reason or ""
    assert str(energy_file) in reason
    assert "root only" in reason


@pytest.mark.parametrize("content", ["", "<not a number>"])
def test_nonsense_in_the_file(tmp_path: Path, content: str) -> None:
    make_domain(tmp_path, "intel-rapl:0", "package-0", 1).write_text(content)
    rapl = RaplCounter(tmp_path)
    assert not rapl.available
    assert "could not be read" in (rapl.unavailable_reason or "")


def test_a_file_that_goes_away(tmp_path: Path) -> None:
    energy_file = make_domain(tmp_path, "intel-rapl:0", "package-0", 1)
    rapl = RaplCounter(tmp_path)
    energy_file.unlink()
    assert rapl.energy_j() is None
    assert "stopped being readable" in (rapl.unavailable_reason or "")
