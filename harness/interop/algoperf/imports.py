"""Imported logs in the results home: `imported/algoperf/NAME/`, Parquet and where it came from.

`evaluations.parquet` and `trials.parquet` are the tables of `harness.interop.algoperf.logs`,
`import.json` says what was read and what was not, and `targets.json` is there where targets were
given. The targets are applied when the logs are scored, so other ones ask for no other import.
"""

import datetime
import hashlib
import os
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from harness.errors import UsageError, one_of
from harness.interop.algoperf.logs import Logs, read_logs
from harness.interop.algoperf.targets import KNOWN, Targets, read_targets, targets_named

if TYPE_CHECKING:
    import polars

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_ARCHIVE = re.compile(r"\.(tar|tar\.[a-z0-9]+|t[gx]z)$")


class TargetsGiven(msgspec.Struct, frozen=True, kw_only=True):
    """The targets named at an import: a known name, or a file of which a copy is kept."""

    name: str
    sha256: str


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """Where an import came from, and what of it was left out."""

    name: str
    source: str  # folder or archive, absolute
    imported_at: datetime.datetime
    files_read: int
    evaluations: int
    submissions: dict[str, list[str]]  # by ruleset
    skipped: dict[str, str]  # path below the source: why
    targets: TargetsGiven | None = None

    @property
    def reasons(self) -> dict[str, list[str]]:
        """The files that were skipped, by reason."""
        by_reason: dict[str, list[str]] = {}
        for path, why in self.skipped.items():
            by_reason.setdefault(why, []).append(path)
        return by_reason


class Import(msgspec.Struct, frozen=True, kw_only=True):
    """One import and its folder."""

    folder: Path
    provenance: Provenance

    @property
    def name(self) -> str:
        """The name by which it is asked for."""
        return self.provenance.name

    @property
    def targets(self) -> Targets | None:
        """The targets that were given with it."""
        given = self.provenance.targets
        if given is None:
            return None
        kept = self.folder / "targets.json"
        return targets_named(given.name) if given.name in KNOWN else read_targets(kept)

    def table(self, name: str) -> "polars.LazyFrame":
        """Return `evaluations` or `trials`."""
        import polars

        return polars.scan_parquet(self.folder / f"{name}.parquet")


def import_logs(home: Path, source: Path, name: str | None, targets: str | None) -> Import:
    """Read `source` and keep it in `home` as `name`, by default that of the folder or archive.

    An earlier import of the same source under the same name is replaced.

    Raises:
        UsageError: no logs of AlgoPerf's layout there, no such targets, a name that is taken or
            not legal, a home that cannot be written.
    """
    source = source.expanduser().resolve()
    name = _checked_name(name or _ARCHIVE.sub("", source.name))
    _refuse_taken(home, name, source)
    chosen = None if targets is None else targets_named(targets)
    logs = read_logs(source)
    content = None if chosen is None else msgspec.json.encode(chosen)
    provenance = Provenance(
        name=name,
        source=str(source),
        imported_at=datetime.datetime.now(datetime.UTC).replace(microsecond=0),
        files_read=logs.trials.height,
        evaluations=logs.evaluations.height,
        submissions=_submissions(logs),
        skipped=logs.skipped,
        targets=None
        if content is None or targets is None
        else TargetsGiven(name=targets, sha256=hashlib.sha256(content).hexdigest()),
    )
    folder = imports_folder(home) / name
    try:
        _write(folder, logs, provenance, content)
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be written: {error}. Make room, or name a results folder that is "
            f"yours to write with --results DIR or $BENCH_RESULTS."
        ) from None
    return Import(folder=folder, provenance=provenance)


def imports_folder(home: Path) -> Path:
    """Return the folder of the imports from AlgoPerf."""
    return home / "imported" / "algoperf"


def imports(home: Path) -> list[Import]:
    """Return the imports in `home`, by name.

    Raises:
        UsageError: one is damaged.
    """
    return [_read(path.parent) for path in sorted(imports_folder(home).glob("*/import.json"))]


def import_named(home: Path, name: str) -> Import:
    """Return an import.

    Raises:
        UsageError: there is none of that name, or it is damaged.
    """
    known = {one.name: one for one in imports(home)}
    if name not in known:
        raise one_of("The import", name, known, "`bench import algoperf DIR` makes one.")
    return known[name]


def _read(folder: Path) -> Import:
    try:
        provenance = msgspec.json.decode((folder / "import.json").read_bytes(), type=Provenance)
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(
            f"The import in {folder} is damaged: {error}. Remove the folder and import again."
        ) from None
    return Import(folder=folder, provenance=provenance)


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"An import's name takes letters, digits, `_`, `.` and `-`, not {name!r}. "
            f"Choose one: --name NAME."
        )
    return name


def _refuse_taken(home: Path, name: str, source: Path) -> None:
    folder = imports_folder(home) / name
    if (folder / "import.json").exists():
        before = _read(folder).provenance.source
        if before != str(source):
            raise UsageError(
                f"The import {name!r} is of {before}. Choose another name, --name NAME, or remove "
                f"{folder}."
            )


def _submissions(logs: Logs) -> dict[str, list[str]]:
    pairs = Counter(zip(logs.trials["ruleset"], logs.trials["submission"], strict=True))
    by_ruleset: dict[str, list[str]] = {}
    for ruleset, submission in sorted(pairs):
        by_ruleset.setdefault(ruleset, []).append(submission)
    return by_ruleset


def _write(folder: Path, logs: Logs, provenance: Provenance, targets: bytes | None) -> None:
    """Write aside and move into place, so that no reader sees half an import."""
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        logs.evaluations.write_parquet(aside / "evaluations.parquet")
        logs.trials.write_parquet(aside / "trials.parquet")
        if targets is not None:
            (aside / "targets.json").write_bytes(targets)
        (aside / "import.json").write_bytes(
            msgspec.json.format(msgspec.json.encode(provenance), indent=1)
        )
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


