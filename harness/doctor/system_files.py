"""The files in which Linux describes a machine. Elsewhere they are absent, which is no error."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemFiles:
    """Where procfs and sysfs are mounted."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")

    @property
    def cpus(self) -> Path:
        """The folder with one folder a logical CPU."""
        return self.sys / "devices/system/cpu"


def text(path: Path) -> str | None:
    """Return what a file says, None where it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def number(path: Path) -> int | None:
    """Return the whole number in a file, None where there is none."""
    try:
        return int(text(path) or "")
    except ValueError:
        return None


def field(path: Path, name: str) -> int | None:
    """Return the number behind `name` or `name:` in a file of names and numbers."""
    for line in (text(path) or "").splitlines():
        words = line.split()
        if len(words) > 1 and words[0].rstrip(":") == name and words[1].isdigit():
            return int(words[1])
    return None
