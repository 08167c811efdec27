"""Official data files: where they lie, whether they are the right ones, and how to get them.

They lie in one folder, `--data-dir`, else `$BENCH_DATA_DIR`, else one in the cache, under the
names on the cards. Nothing is downloaded but by `fetch`.
"""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, Protocol

from harness import catalogue
from harness.cards import DataFile, WorkloadCard
from harness.errors import UsageError
from harness.home import cache_folder
from harness.prepared_paths import is_prepared

FOLDER_VARIABLE = "BENCH_DATA_DIR"
TIMEOUT_S = 30.0  # of a connection or a silence, not of a download
CHUNK_BYTES = 1 << 16
FILES_SHOWN = 4  # in a message

State = Literal["missing", "damaged", "present", "verified"]
STATES: tuple[State, ...] = ("damaged", "missing", "present", "verified")  # the worst first


def data_folder() -> Path:
    """Return the folder of the data files as an absolute path, whether it exists or not.

    Raises:
        UsageError: no folder can be there: a file is, an unknown ~user, too long a name.
    """
    text = os.environ.get(FOLDER_VARIABLE)
    if not text:
        return cache_folder() / "data"
    try:
        folder = Path(text).expanduser().absolute()
        usable = folder.is_dir() or not folder.exists()
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a null byte
        raise UsageError(
            f"The data folder {text!r} cannot be used: {error}. Choose another: --data-dir."
        ) from None
    if not usable:
        raise UsageError(
            f"The data folder {text!r} cannot be used: it is a file. Choose another: --data-dir."
        )
    return folder


def local_path(file: DataFile) -> Path:
    """Return where the file belongs."""
    return data_folder() / file.name


def state(file: DataFile, *, again: bool = False) -> State:
    """Return what is known of the file here: `present` has the right size and is not yet hashed.

    `again` hashes it now, whatever was found before.

    Raises:
        UsageError: it is there and cannot be read.
    """
    path = local_path(file)
    size = _size(path)
    if size is None:
        return "missing"
    if size not in file.sizes:
        return "damaged"
    found = found_sha256(path) if again else _remembered(path)
    if found is None:
        return "present"
    return "verified" if found in file.hashes else "damaged"


def verified_path(card: WorkloadCard, name: str) -> Path:
    """Return where the card's file `name` lies; its hash was checked since it last changed.

    Raises:
        UsageError: it is missing, unreadable or damaged.
        ValueError: the card names no such file.
    """
    file = next((file for file in card.data.files if file.name == name), None)
    if file is None:
        raise ValueError(f"the card of {card.name} names no file {name!r}")
    path = local_path(file)
    size = _size(path)
    if size is None:
        raise _missing([card], [file])
    if size not in file.sizes:
        raise _damaged(file, path, f"{size} bytes", f"{file.bytes} bytes")
    found = _remembered(path) or found_sha256(path)
    if found not in file.hashes:
        raise _damaged(file, path, f"SHA-256 {found}", file.sha256)
    return path


def require(cards: Iterable[WorkloadCard]) -> None:
    """Refuse workloads that are not prepared yet and of which a file is missing or damaged.

    Raises:
        UsageError: names all missing files, or the first damaged one, and what to do.
    """
    unprepared = [card for card in cards if not is_prepared(card)]
    lacking = [
        (card, missing)
        for card in unprepared
        if (missing := [file for file in card.data.files if _size(local_path(file)) is None])
    ]
    if lacking:
        files = {file.name: file for _, missing in lacking for file in missing}
        raise _missing([card for card, _ in lacking], list(files.values()))
    for card in unprepared:
        for file in card.data.files:
            verified_path(card, file.name)


def known_files() -> dict[str, DataFile]:
    """Return every file that a card names.

    Raises:
        UsageError: two cards name different files alike.
    """
    known: dict[str, DataFile] = {}
    for entry in catalogue.workloads().values():
        for file in entry.card.data.files:
            other = known.setdefault(file.name, file)
            if (other.bytes, other.sha256) != (file.bytes, file.sha256):
                raise UsageError(
                    f"The card {entry.path} calls a file {file.name!r}, and another card calls "
                    "another file so. Rename one."
                )
    return known


def found_sha256(path: Path) -> str:
    """Hash a file and remember what was found until its size or time of change is another.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        stamp = _stamp(path)
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(
            f"The data file {path} cannot be read: {error.strerror or error}. "
            "Make it readable, or choose another folder: --data-dir."
        ) from None
    _remember(path, f"{stamp} {found}")
    return found


class Progress(Protocol):
    """What a download tells of itself: tqdm's methods, which pooch calls."""

    total: int

    def update(self, n: int) -> None:
        """Note `n` more bytes."""

    def reset(self) -> None:
        """Begin anew."""

    def close(self) -> None:
        """End."""


class DownloadFailedError(Exception):
    """A file did not arrive; the message says which, why, and what to do."""


def fetch(file: DataFile, progress: Progress) -> None:
    """Download a file to its place; under its name it stands only once it is whole and right.

    Raises:
        DownloadFailedError: no address, the network, or other content than the card says.
        UsageError: the folder cannot be written.
    """
    path = local_path(file)
    if file.url is None:
        raise DownloadFailedError(
            f"{file.name} is no single official file. {file.how} It belongs at {path}."
        )

    import pooch  # only here: it loads requests, and nothing but a download needs them
    import requests

    pooch.get_logger().setLevel("ERROR")
    downloader = pooch.HTTPDownloader(
        progressbar=progress,
        chunk_size=CHUNK_BYTES,
        timeout=TIMEOUT_S,
        headers={"Accept-Encoding": "identity"},  # a packed file stays packed
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pooch.retrieve(
            file.url,
            known_hash=f"sha256:{file.sha256}",
            fname=path.name,
            path=path.parent,
            downloader=downloader,
        )
        path.chmod(0o644)  # pooch's is for one user; a data folder is often shared
    except requests.RequestException as error:
        raise DownloadFailedError(
            f"{file.url} cannot be downloaded: {_network_reason(error)}. Try again, or get it "
            f"in another way and put it at {path} (or under the name {file.name} into the folder "
            f"that --data-dir or ${FOLDER_VARIABLE} names)."
        ) from None
    except OSError as error:
        reason = error.strerror or getattr(error.__cause__, "strerror", None)  # pooch's are bare
        raise UsageError(
            f"The data file {path} cannot be stored: {reason or error}. "
            "Make room or choose another folder: --data-dir."
        ) from None
    except ValueError as error:  # the hash
        raise DownloadFailedError(
            f"{file.url} is not the file that the card says: {error} Nothing was kept. The source "
            f"may have changed; if you have {file.name}, name its folder by --data-dir."
        ) from None
    found_sha256(path)


def _network_reason(error: BaseException) -> str:
    response = getattr(error, "response", None)
    if response is not None:
        return f"the server answers {response.status_code} {response.reason}"
    # The layers wrap each other's errors; the innermost says what happened.
    for _ in range(10):
        error = error.__cause__ or error.__context__ or error
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


def _missing(cards: Sequence[WorkloadCard], files: Sequence[DataFile]) -> UsageError:
    names = " ".join(card.name for card in cards)
    few = ", ".join(file.name for file in files[:FILES_SHOWN])
    more = f" and {len(files) - FILES_SHOWN} more" if len(files) > FILES_SHOWN else ""
    size_mb = sum(file.bytes for file in files if file.url is not None) / 1e6
    what = "them" if all(file.url for file in files) else "what has an address"
    ways = [
        f"`bench data get {names}` downloads {what} ({size_mb:.1f} MB)." if size_mb else "",
        *(f"{file.name}: {file.how}" for file in files if file.how is not None),
        "Files that you have already: --data-dir or $BENCH_DATA_DIR names their folder.",
    ]
    verb = "needs" if len(cards) == 1 else "need"
    return UsageError(
        f"{names.replace(' ', ', ')} {verb} {few}{more}, which cannot be found in "
        f"{data_folder()}. {' '.join(filter(None, ways))}"
    )


def _damaged(file: DataFile, path: Path, found: str, expected: str) -> UsageError:
    fix = f"`bench data get {file.name}` replaces it" if file.url else f"Get it anew: {file.how}"
    return UsageError(
        f"The data file {path} is not the right one: found {found}, expected {expected}. "
        f"{fix.rstrip('.')}; or choose another folder: --data-dir."
    )


def _size(path: Path) -> int | None:
    """Return the bytes of a file, None where there is none.

    Raises:
        UsageError: whether there is one cannot be seen.
    """
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError as error:
        raise UsageError(
            f"The data file {path} cannot be read: {error.strerror}. "
            "Make it readable, or choose another folder: --data-dir."
        ) from None


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _memory_path(path: Path) -> Path:
    """Return where the hash of a file is remembered: apart, its folder may be read-only."""
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
    return cache_folder() / "data-hashes" / name


def _remembered(path: Path) -> str | None:
    try:
        stamp, _, found = _memory_path(path).read_text(encoding="ascii").rpartition(" ")
        return found if stamp == _stamp(path) else None
    except (OSError, UnicodeDecodeError):
        return None


def _remember(path: Path, text: str) -> None:
    memory = _memory_path(path)
    aside = memory.with_name(f"{secrets.token_hex(8)}.tmp")
    with contextlib.suppress(OSError):  # then it is hashed again next time
        memory.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, encoding="ascii")
        aside.replace(memory)
