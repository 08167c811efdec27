"""Writes reports and pictures so that there is always a whole one: the old or the new."""

import contextlib
import importlib.util
import os
from pathlib import Path

from harness.errors import UsageError

PICTURE_FORMATS = ("png", "svg", "pdf")


def check_writable(path: Path) -> None:
    """Find out, before anything is computed, whether a file can be there.

    Raises:
        UsageError: no such folder, or a folder is in its place.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder. Name a file in it: {path / 'report.html'}, say.")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path} cannot be written: there is no folder {path.absolute().parent}.")


def check_picture(path: Path) -> str:
    """Return the format that a picture's name asks for, when it can be drawn and written.

    Raises:
        UsageError: no such format or folder, or Matplotlib is missing.
    """
    form = path.suffix.removeprefix(".").lower()
    if form not in PICTURE_FORMATS:
        raise UsageError(
            f"A picture's name ends in {', '.join(f'.{one}' for one in PICTURE_FORMATS)}, "
            f"not as {path.name!r} does. Choose one of them."
        )
    check_writable(path)
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(
            "Pictures need matplotlib, which is not installed: pip install 'timetrial[plots]'."
        )
    return form


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
