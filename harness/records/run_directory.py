"""The run directory: the record of one run, append-only while it runs, never touched after.

spec.json         the resolved specification (harness.spec.RunSpec)
environment.json  packages, CPU, GPU, driver, git (harness.records.environment)
process.json      pid, its start time, boot id and host of the referee
heartbeat         touched every few seconds while the referee lives
source/           the submission's source and card, for review
events.jsonl      evaluations, notes and the outcome, flushed as they happen
telemetry.jsonl   the readings
output.txt        what the trainee printed, both streams
"""

import contextlib
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from harness.events import Event
from harness.spec import RunSpec
from harness.telemetry.reading import Reading

HEARTBEAT_PERIOD_S = 2.0
HEARTBEAT_STALE_S = 60.0  # longer than any pause of a shared file system worth waiting for

S = TypeVar("S")

_EVENTS: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
_READINGS = msgspec.json.Decoder(Reading)


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """The referee process, told from a later one with the same pid."""

    pid: int
    started_ticks: int | None  # /proc/PID/stat, field 22; None where there is no /proc
    boot_id: str
    host: str

    @classmethod
    def current(cls) -> "Owner":
        """Return this process."""
        return cls(
            pid=os.getpid(),
            started_ticks=_started_ticks(os.getpid()),
            boot_id=_boot_id(),
            host=socket.gethostname(),
        )


class RunWriter:
    """Writes one run directory; lives in the referee."""

    def __init__(self, folder: Path, spec: RunSpec) -> None:
        """Create the directory.

        Raises:
            OSError: it cannot be written, for instance because the disk is full.
        """
        folder.mkdir(parents=True)
        self.folder = folder
        # First of all, so that nobody takes the directory for an abandoned one.
        _write_json(folder / "process.json", Owner.current())
        (folder / "heartbeat").touch()
        _write_json(folder / "spec.json", spec)
        self._events = (folder / "events.jsonl").open("ab", buffering=0)
        self._telemetry = (folder / "telemetry.jsonl").open("ab")
        self._beaten_at = time.monotonic()

    def add_environment(self, environment: Mapping[str, object]) -> None:
        """Write environment.json."""
        _write_json(self.folder / "environment.json", environment)

    def add_sources(self, files: Mapping[str, Path]) -> None:
        """Copy the submission's files into source/, under the given names."""
        (self.folder / "source").mkdir()
        for name, path in files.items():
            shutil.copyfile(path, self.folder / "source" / name)

    @property
    def output_path(self) -> Path:
        """The file that takes the trainee's printed output."""
        return self.folder / "output.txt"

    def event(self, event: Event) -> None:
        """Append one event; it survives this process's death from here on."""
        self._events.write(msgspec.json.encode(event) + b"\n")

    def reading(self, reading: Reading) -> None:
        """Append one telemetry reading; buffered, since a lost one only thins a curve."""
        self._telemetry.write(msgspec.json.encode(reading) + b"\n")

    def beat(self) -> None:
        """Say that the referee lives; cheap to call often."""
        now = time.monotonic()
        if now - self._beaten_at >= HEARTBEAT_PERIOD_S:
            self._beaten_at = now
            os.utime(self.folder / "heartbeat")

    def close(self) -> None:
        """Close the files and remove the heartbeat: the record is complete."""
        with contextlib.suppress(OSError):  # readings that no longer fit on the disk
            self._telemetry.close()
        os.fsync(self._events.fileno())
        self._events.close()
        (self.folder / "heartbeat").unlink(missing_ok=True)


class RunDirectory:
    """Reads one run directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.folder.name

    def spec(self) -> RunSpec:
        """Return the specification; raises OSError or msgspec.MsgspecError if it is damaged."""
        return _read_json(self.folder / "spec.json", RunSpec)

    def environment(self) -> dict[str, object]:
        """Return the environment, empty where it is missing."""
        try:
            return _read_json(self.folder / "environment.json", dict[str, object])
        except (OSError, msgspec.MsgspecError):
            return {}

    def events(self) -> list[Event]:
        """Return the complete lines of the event log; a line cut off by a kill is left out."""
        return list(_read_lines(self.folder / "events.jsonl", _EVENTS))

    def readings(self) -> list[Reading]:
        """Return the telemetry."""
        return list(_read_lines(self.folder / "telemetry.jsonl", _READINGS))

    def sources(self) -> dict[str, str]:
        """Return the submission's files by name."""
        folder = self.folder / "source"
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        return {path.name: path.read_text(encoding="utf-8", errors="replace") for path in files}

    def output(self) -> str:
        """Return what the trainee printed."""
        try:
            return (self.folder / "output.txt").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def is_live(self) -> bool:
        """Return whether the run's referee still runs."""
        heartbeat = self.folder / "heartbeat"
        try:
            age_s = time.time() - heartbeat.stat().st_mtime  # both are the wall clock's
            owner = _read_json(self.folder / "process.json", Owner)
        except (OSError, msgspec.MsgspecError):
            # Just being made, or abandoned while it was.
            return heartbeat.exists() and _age_s(heartbeat) < HEARTBEAT_STALE_S
        if owner.host != socket.gethostname():
            return age_s < HEARTBEAT_STALE_S
        return owner.boot_id == _boot_id() and _alive(owner)


def run_directories(runs: Path) -> Iterator[RunDirectory]:
    """Yield every run directory below `runs`, oldest name first."""
    for name in run_ids(runs):
        yield RunDirectory(runs / name)


def run_ids(runs: Path) -> list[str]:
    """Return the names of the run directories below `runs`, in order."""
    # Strings, not paths: of a hundred thousand, the paths alone take a second.
    folder = str(runs)
    if not os.path.isdir(folder):  # noqa: PTH112
        return []
    return sorted(n for n in os.listdir(folder) if os.path.isfile(f"{folder}/{n}/spec.json"))  # noqa: PTH113, PTH208


def _write_json(path: Path, content: object) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")


def _read_json(path: Path, kind: type[S]) -> S:
    return msgspec.json.decode(path.read_bytes(), type=kind)


def _read_lines(path: Path, decoder: msgspec.json.Decoder[S]) -> Iterator[S]:
    try:
        content = path.read_bytes()
    except OSError:
        return
    for line in content.split(b"\n"):
        if line:
            try:
                yield decoder.decode(line)
            except msgspec.MsgspecError:
                continue


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return float("inf")


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _started_ticks(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])  # the name in brackets may hold blanks


def _alive(owner: Owner) -> bool:
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return owner.started_ticks is None or _started_ticks(owner.pid) == owner.started_ticks
