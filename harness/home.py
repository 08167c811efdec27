"""Where results live, and where prepared data is cached."""

import os
import stat
from pathlib import Path

from harness.errors import UsageError


def results_home(option: str | None) -> Path:
    """Return `--results`, else `$BENCH_RESULTS`, else `./results`, as an absolute path.

    Raises:
        UsageError: no folder can be there: a file is, an unknown ~user, too long a name.
    """
    text = option or os.environ.get("BENCH_RESULTS") or "results"
    try:
        home = Path(text).expanduser().absolute()
        folder = stat.S_ISDIR(home.stat().st_mode)
    except FileNotFoundError:
        return home
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a null byte
        raise UsageError(
            f"The results folder {text!r} cannot be used: {error}. Choose another: --results."
        ) from None
    if not folder:
        raise UsageError(
            f"The results folder {text!r} cannot be used: it is a file. Choose another: --results."
        )
    return home


def runs_folder(home: Path) -> Path:
    """Return the folder of the run directories."""
    return home / "runs"


def paces_folder(home: Path) -> Path:
    """Return the folder of the stored paces."""
    return home / "paces"


def index_path(home: Path) -> Path:
    """Return the DuckDB index, which can be rebuilt from the run directories."""
    return home / "bench.duckdb"


def cache_folder() -> Path:
    """Return `$XDG_CACHE_HOME/timetrial`, else `~/.cache/timetrial`.

    Raises:
        UsageError: this user has no home directory.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if base.is_absolute():  # others are to be ignored, says the XDG specification
        return base / "timetrial"
    try:
        return Path.home() / ".cache" / "timetrial"
    except RuntimeError as error:
        raise UsageError(f"{error} Set XDG_CACHE_HOME to the folder for prepared data.") from None
