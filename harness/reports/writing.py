"""Writes a report's file so that there is always a whole one: the old or the new."""

import contextlib
import os
from pathlib import Path

from harness.errors import UsageError


def check_writable(path: Path) -> None:
    """Find out, before anything is computed, whether a file can be there.

    Raises:
        UsageError: no such folder, or a folder is in its place.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder. Name a file: -o {path / 'report.html'}.")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path} cannot be written: there is no folder {path.absolute().parent}.")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file aside and move it into place; whatever fails, an older one stays as it was.

    Raises:
        UsageError: it cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise UsageError(f"{path} cannot be written: {error}.") from None
