"""Where results live, and where prepared data is cached."""

import os
from pathlib import Path


def results_home(option: str | None) -> Path:
    """Return `--results`, else `$BENCH_RESULTS`, else `./results`, as an absolute path."""
    return Path(option or os.environ.get("BENCH_RESULTS") or "results").expanduser().absolute()


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
    """Return `$XDG_CACHE_HOME/timetrial`, else `~/.cache/timetrial`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "timetrial"
